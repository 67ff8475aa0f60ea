"""A chat as a web service: messages over HTTP, answers as they are written, approvals, and workers beside it.

Three processes on one file, each started in a terminal of its own, in any order and as often as you like::

    $ python -m examples.chat_service.worker runs.db
    $ python -m examples.chat_service.worker runs.db
    $ python -m examples.chat_service.web runs.db

The model is a stand-in that answers from a script, so it runs without a key: give `support` another ``model=``.
"""
