"""What ``LLMServer`` answers later: answers made in the background, and batches.

One module for each way that the providers have: it takes a request, says how it stands, gives the answer and cancels.
"""

from __future__ import annotations

from durably.testing.models.late.background import Background
from durably.testing.models.late.file_batches import FileBatches
from durably.testing.models.late.job import Answering, Job
from durably.testing.models.late.message_batches import MessageBatches
from durably.testing.models.wire.http import HTTPRequest

__all__ = ["LateAnswers"]


class LateAnswers:
    """All requests that one server has taken, to answer them later.

    Args:
        answer: Answers a request at once.
        polls: How often the server is asked for an answer before that is there.

    Attributes:
        jobs: The requests, oldest first.
    """

    def __init__(self, answer: Answering, polls: int) -> None:
        self.jobs: list[Job] = []
        self._ways = [way(answer, polls, self.jobs) for way in (Background, MessageBatches, FileBatches)]

    async def handle(self, request: HTTPRequest) -> str | None:
        """The body of an answer, or ``None`` for a request of another kind.

        Raises:
            InvalidRequest: If the real server would refuse it.
        """
        for way in self._ways:
            text = await way.handle(request)
            if text is not None:
                return text
        return None
