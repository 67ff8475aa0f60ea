"""The demo: ``python -m examples.audit.demo`` kills the audit again and again, and it finishes anyway.

``run`` is one demo from its first process to its verdicts, ``kill_plan`` says where the processes are killed,
``worker`` is what runs in them, and ``laws`` is what must hold afterwards. Killing, the ledger and the laws themselves
are ``durably.testing``. The rest is what is shown: ``screen``, ``table``, ``narration``.
"""
