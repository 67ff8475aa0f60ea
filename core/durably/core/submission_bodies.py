"""The bodies of the steps that fetch what was submitted: an agent has them as methods, for any worker to find them."""

from __future__ import annotations

from abc import abstractmethod

from durably.core.compaction import checked_summary
from durably.core.errors import ModelError
from durably.core.fallback import deferring
from durably.core.model import Model, ModelRequest, ModelResponse
from durably.core.server_tools import ServerTool
from durably.core.submission import Submission
from durably.core.toolsets import ListedSpecs

__all__ = ["SubmissionBodies"]


class SubmissionBodies:
    """What an agent does about answers that come later."""

    __slots__ = ()

    model: Model
    summarizer: Model
    model_timeout: float | None
    server_tools: tuple[ServerTool, ...]

    @abstractmethod
    def finished(self, response: ModelResponse, listed: ListedSpecs | None) -> ModelResponse:
        """Return an answer as it is recorded."""

    async def fetch_answer(
        self, submitted: Submission, waited: float, turn: int, listed: ListedSpecs | None = None
    ) -> ModelResponse:
        """Ask once whether an answer is there: the body of ``fetch-answer``.

        Args:
            submitted: What was submitted.
            waited: How many seconds the run has waited for it.
            turn: How many assistant messages there were in the conversation.
            listed: The tools that the agent's toolsets have listed for the run.
        """
        asked = ModelRequest(system="", messages=[], turn=turn, server_tools=self.server_tools)
        return self.finished(await self._fetched(self.model, submitted, waited, asked), listed)

    async def fetch_summary(self, submitted: Submission, waited: float) -> ModelResponse:
        """Ask once whether a summary is there: the body of ``fetch-summary``.

        Args:
            submitted: What was submitted.
            waited: How many seconds the run has waited for it.
        """
        asked = ModelRequest(system="", messages=[])
        return checked_summary(await self._fetched(self.summarizer, submitted, waited, asked), self.summarizer)

    async def give_up(self, submitted: Submission) -> None:
        """Have the provider stop working on an answer that nobody waits for any more.

        Args:
            submitted: What was submitted.
        """
        await deferring(self.model).give_up(submitted)

    async def give_up_summary(self, submitted: Submission) -> None:
        """Have the provider stop working on a summary that nobody waits for any more.

        Args:
            submitted: What was submitted.
        """
        await deferring(self.summarizer).give_up(submitted)

    async def _fetched(self, model: Model, submitted: Submission, waited: float, asked: ModelRequest) -> ModelResponse:
        response = await deferring(model).fetch(submitted, asked)
        limit = self.model_timeout
        if response.submitted is None or limit is None or waited < limit:
            return response
        await deferring(model).give_up(submitted)
        provider, _, name = model.name.partition(":")
        raise ModelError(
            f"{model.name} has not answered within {limit:g} seconds, the agent's model_timeout=; "
            f"{submitted.kind} {submitted.id!r} was cancelled",
            provider=provider,
            model=name,
        )
