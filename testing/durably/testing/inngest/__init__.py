"""The engine's side of Inngest's protocol, in this process: for tests that need no server.

:class:`InngestEngine` plays the dev server to the real ``inngest`` SDK: it takes events, calls the app over ASGI hop by
hop, keeps the steps, and answers the questions that clients ask. What it does was read off a real server (dev server of
August 2026, SDK 0.5.19); where that is surprising, a comment says so.
"""

try:
    import inngest  # noqa: F401
except ImportError as error:
    raise ImportError("durably.testing.inngest needs the Inngest SDK: pip install 'durably[inngest]'") from error

from durably.testing.inngest.calls import Call, Lost, Reply
from durably.testing.inngest.engine import InngestEngine
from durably.testing.inngest.faults import Faults
from durably.testing.inngest.runs import EngineRun

__all__ = ["Call", "EngineRun", "Faults", "InngestEngine", "Lost", "Reply"]
