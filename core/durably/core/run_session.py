"""What a run has to do with its session: what of it is saved there already, and what arrived for it meanwhile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from durably.core.conversation import Conversation
from durably.core.messages import ContentPart, SessionEntry, SessionNote, SessionPrefix, UserMessage
from durably.core.steps import StepAPI

__all__ = ["ArrivedMessage", "RunSession", "SessionParts"]


class ArrivedMessage(BaseModel):
    """A message that came while a run of its session was live. The step ``read-messages`` records it.

    Args:
        run_id: The run that was started with it, and waits for the end of the live one.
        message: What the user says.
    """

    model_config = ConfigDict(defer_build=True, frozen=True)

    run_id: str
    message: str | list[ContentPart]


class SessionParts(Protocol):
    """What a session needs of an agent. The methods are bodies of steps."""

    @property
    def save_turns(self) -> bool: ...
    @property
    def steers(self) -> bool: ...
    async def save(self, session_key: str, messages: Sequence[SessionEntry]) -> None: ...
    async def find_answer(self, prefix: SessionPrefix) -> str | None: ...
    async def read_messages(self, taken: list[str]) -> list[ArrivedMessage]: ...


class RunSession:
    """The session of one run.

    A run that began when its history was recorded as messages goes on as it began: it saves all at its end.

    Args:
        agent: Reads and writes the session.
        step: Runs that as steps.
        key: The session, or ``None`` to save nothing.
        history: What the run has read of it.
        conversation: What is said.
    """

    def __init__(
        self, agent: SessionParts, step: StepAPI, key: str | None, history: object, conversation: Conversation
    ) -> None:
        self._agent = agent
        self._step = step
        self._key = key
        self._read = history if isinstance(history, SessionPrefix) else None
        self._conversation = conversation
        self._saved = 0
        self._taken: list[str] = []
        self._steers = agent.steers and key is not None and self._read is not None

    async def answer_of_another(self) -> str | None:
        """What another run, which took up the message of this one, answered to it."""
        if not self._steers or self._read is None:
            return None
        return await self._step.run("find-answer", self._agent.find_answer, self._read)

    async def begin(self) -> None:
        """Save the message that the run answers."""
        if self._read is not None:
            await self._save("save-message")

    async def save_turn(self) -> None:
        """Save what was said up to the calls of this turn."""
        if self._read is not None and self._agent.save_turns:
            await self._save("save-turn")

    async def save_summary(self, summary: str) -> None:
        """Note a summary of what the run had read of the session, so that the next run begins with it."""
        before = self._conversation.transcript.before
        if self._key is not None and before is not None and before.appends:
            note = SessionNote(summary=summary, appends=before.appends)
            await self._step.run("save-summary", self._agent.save, self._key, [note])

    async def take_messages(self) -> None:
        """Add what has arrived since the last turn to the conversation."""
        if not self._steers:
            return
        for arrived in await self._step.run("read-messages", self._agent.read_messages, self._taken):
            self._taken.append(arrived.run_id)
            self._conversation.add(UserMessage(content=arrived.message))

    async def end(self, *, answered: bool) -> None:
        """Save the rest, and whether the messages that were taken up have their answer."""
        notes = [SessionNote(answered=self._taken)] if answered and self._taken else []
        await self._save("save-session", notes)

    async def _save(self, step_id: str, notes: Sequence[SessionNote] = ()) -> None:
        said = self._conversation.said[self._saved :]
        if self._key is not None and (said or notes):
            await self._step.run(step_id, self._agent.save, self._key, [*said, *notes])
            self._saved += len(said)
