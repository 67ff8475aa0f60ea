"""One request that is answered later, and what all ways to do so have in common."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from durably.core import ModelError
from durably.core.serialization import digest
from durably.testing.models.wire.http import HTTPRequest
from durably.testing.models.wire.strict import InvalidRequest

__all__ = ["Answering", "Job", "Way"]

Answering = Callable[[str, dict[str, Any], Mapping[str, str]], Awaitable[dict[str, Any]]]
"""Answers a request to a path, with headers, by the JSON of its answer."""


@dataclass
class Job:
    """A request that the server has taken.

    Attributes:
        id: The server's id of it.
        polls: How often it is still asked for before the answer is there.
        answer: The JSON of the answer.
        failure: The error in its place: its status, its code and its message.
        custom_id: What the client calls it in its batch.
        ended: How it has ended, if it was not by its answer.
    """

    id: str
    polls: int
    answer: dict[str, Any] | None = None
    failure: tuple[int, str | None, str] | None = None
    custom_id: str = ""
    ended: Literal["cancelled", "expired"] | None = None

    @property
    def pending(self) -> bool:
        """Whether the server still works on it."""
        return self.ended is None and self.polls > 0

    def poll(self) -> None:
        """Note that the client asks."""
        self.polls = max(0, self.polls - 1)

    def cancel(self) -> None:
        """End it, unless it has ended."""
        if self.pending:
            self.ended = "cancelled"

    def expire(self) -> None:
        """Let its time be over, unless it has ended."""
        if self.pending:
            self.ended = "expired"


class Way(ABC):
    """One way in which a provider answers later.

    Args:
        answer: Answers a request at once.
        polls: How often the server is asked for an answer before that is there.
        jobs: The requests that were taken, to which this way adds its own.
    """

    def __init__(self, answer: Answering, polls: int, jobs: list[Job]) -> None:
        self._answer = answer
        self._polls = polls
        self._jobs = jobs

    @abstractmethod
    async def handle(self, request: HTTPRequest) -> str | None:
        """The body of an answer, or ``None`` for a request of another kind."""

    def _asked(self, request: HTTPRequest, path: str, what: str) -> Job | None:
        """The job below a path that a request asks for or cancels; ``None`` for a request of another kind.

        Args:
            request: The request.
            path: Where the jobs are.
            what: What an error calls one.
        """
        if not request.path.startswith(f"{path}/"):
            return None
        job_id, _, rest = request.path.removeprefix(f"{path}/").partition("/")
        job = self._find(job_id, what)
        if request.method == "POST" and rest == "cancel":
            job.cancel()
        elif request.method == "GET" and not rest:
            job.poll()
        else:
            return None
        return job

    def _find(self, job_id: str, what: str) -> Job:
        for job in reversed(self._jobs):
            if job.id == job_id:
                return job
        raise InvalidRequest(f"{what} with id '{job_id}' not found.", status=404)

    async def _begin(
        self, prefix: str, path: str, data: dict[str, Any], headers: Mapping[str, str], *, judged: bool
    ) -> Job:
        """Take a request. It is another job each time, as no provider says that it knows a request again.

        The ids are the same for the same request, as all answers of this server are: the newest job has it.

        Args:
            prefix: How its id begins.
            path: Where it would go to be answered at once.
            data: Its JSON.
            headers: Its headers.
            judged: Whether what is wrong with it is said at once. If not, its answer says so.
        """
        answer, failure = None, None
        try:
            answer = await self._answer(path, data, headers)
        except ModelError as error:
            failure = (error.status or 500, None, str(error))
        except InvalidRequest as error:
            if judged or error.status in (401, 403):
                raise
            failure = (error.status, None, str(error))
        asked = digest(path + json.dumps(data, sort_keys=True))
        job = Job(f"{prefix}_{asked}", self._polls + 1, answer, failure)
        self._jobs.append(job)
        return job
