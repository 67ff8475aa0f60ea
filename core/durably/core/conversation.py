"""The conversation of one run: all that was said, and the part that the model sees.

Owns: both, and how a summary takes the place of the older part. Does not own: when that is due (``compaction.py``).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from durably.core.compaction import first_kept, summary_note
from durably.core.messages import Message, SessionPrefix, TextPart, Transcript, UserMessage
from durably.core.pruning import can_be_pruned
from durably.core.toolsets import ListedSpecs

__all__ = ["Conversation"]


class Conversation:
    """All messages of a run, and the transcript that the model sees. The transcript may be cut.

    Args:
        system: The system prompt.
        history: The messages before this run, or how far the run has read its session.
        message: The message that the run answers.

    Attributes:
        said: The messages of this run. They only grow.
        transcript: The messages that the model sees.
        summary: The summary of those that it no longer sees, or an empty text.
        listed: The tools that the agent's toolsets have listed for the run, or ``None`` if it has none.
        options: The model's options, if they depend on the run.
    """

    def __init__(self, system: str, history: list[Message] | SessionPrefix, message: UserMessage) -> None:
        self.said: list[Message] = [message]
        self.summary = ""
        self.listed: ListedSpecs | None = None
        self.options: dict[str, Any] | None = None
        self._message = message
        if isinstance(history, SessionPrefix):
            self._place = 0  # where the answered message is in the transcript; it is never summarised
            self.transcript = Transcript(system, [message], before=history)
            return
        # A function may save the incoming message before it runs the loop. The model would then see it twice.
        before = history[:-1] if history and history[-1] == message else history
        self._place = len(before)
        self.transcript = Transcript(system, [*before, message])

    def add(self, *messages: Message) -> None:
        """Add messages at the end."""
        self.said.extend(messages)
        self.transcript.extend(messages)

    def asked(self, turns_left: int | None) -> list[Any]:
        """Return the arguments of the step ``think``. What an agent does not have stands in no record.

        Args:
            turns_left: How many turns are left, if the model should be told.
        """
        rare = [self.listed, self.options]
        while rare and rare[-1] is None:
            rare.pop()
        return [self.transcript, turns_left, *rare]

    @property
    def known(self) -> tuple[Any, ...]:
        """What an answer is read with that comes later: the turn, and the listed tools if there are some."""
        listed = () if self.listed is None else (self.listed,)
        return (self.transcript.turn, *listed)

    def older(self, keep: int) -> Transcript | None:
        """Return the part that a summary may replace: all but the answered message and the newest ones.

        Args:
            keep: How many of the newest messages stay.

        Returns:
            That part, or ``None`` if it is empty.
        """
        old, _ = self._parts(keep)
        before = self.transcript.before
        if before is not None and not before.appends:
            before = None
        return Transcript("", old, before=before) if old or before else None

    def can_prune(self, keep: int) -> bool:
        """Return whether there are old results of tools that can be left out.

        Args:
            keep: How many of the newest messages stay as they are.
        """
        messages = self.transcript.messages
        before = self.transcript.before
        pruned = self.transcript.pruned
        old = can_be_pruned(messages[pruned or 0 : max(0, len(messages) - keep)])
        return old or (pruned is None and before is not None and before.turns > 0)

    def compact(self, keep: int, summary: str) -> None:
        """Replace the part that :meth:`older` returns by a summary of it."""
        _, kept = self._parts(keep)
        skipped = self.transcript.turn - _answers(kept)
        self.summary = summary
        self._place = 0
        spent = self.transcript.spent
        self.transcript = Transcript(self.transcript.system, [self._with_summary(), *kept], skipped, spent=spent)

    def _parts(self, keep: int) -> tuple[list[Message], list[Message]]:
        messages = self.transcript.messages
        start = max(first_kept(messages, keep), self._place)
        old = [*messages[: self._place], *messages[self._place + 1 : start]]
        return old, messages[max(start, self._place + 1) :]

    def _with_summary(self) -> UserMessage:
        # The summary is added to the answered message: some providers refuse two user messages in a row.
        note = summary_note(self.summary)
        content = self._message.content
        if isinstance(content, str):
            return UserMessage(content=f"{content}\n\n{note}")
        return UserMessage(content=[*content, TextPart(text=note)])


def _answers(messages: Iterable[Message]) -> int:
    return sum(message.role == "assistant" for message in messages)
