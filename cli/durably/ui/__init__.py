"""The page ``durably ui``: runs in a browser, live, with what can be done about them. It needs the extra `cli`.

``app.py`` puts it together: ``pages.py`` shows, ``actions.py`` changes, ``live.py`` says when to look again, and
``guard.py`` decides whom to listen to. What is shown of a trace is worked out in ``timeline.py``, ``chat.py`` and
``compare.py``; the templates only set it.
"""
