"""An agent that audits a directory of source code or text: ``python -m examples.audit DIRECTORY``.

``agent`` is the agent with its tools, ``scripted`` a model that needs no provider, ``corpus`` and ``measure`` are what
the tools work with, and ``report`` is where the findings go. ``demo`` kills the agent again and again and checks what
it left behind.
"""
