"""One run's conversation: what was said, and what the model sees of it."""

from __future__ import annotations

from collections.abc import Iterable

from durably.core.compaction import first_kept
from durably.core.messages import Message, TextPart, Transcript, UserMessage

__all__ = ["Conversation"]


class Conversation:
    """A conversation that only grows, and the transcript of it that the model sees, which may be cut.

    Args:
        system: The system prompt.
        history: What was said before this run.
        message: What the run answers.

    Attributes:
        said: This run's own messages.
        transcript: What the model sees.
        summary: What stands there for the part it does not see any more.
    """

    def __init__(self, system: str, history: list[Message], message: UserMessage) -> None:
        # A function that saved the incoming message before the loop finds it at the end of the history.
        before = history[:-1] if history and history[-1] == message else history
        self.said: list[Message] = [message]
        self.transcript = Transcript(system, [*before, message])
        self.summary = ""
        self._message = message
        self._place = len(before)

    def add(self, *messages: Message) -> None:
        """What was said next."""
        self.said.extend(messages)
        self.transcript.extend(messages)

    def older(self, keep: int) -> Transcript | None:
        """What a summary may stand for: all but the message that is answered and the newest ones.

        Returns:
            It, or ``None`` if there is no such part.
        """
        old, _ = self._parts(keep)
        return Transcript("", old) if old else None

    def compact(self, keep: int, summary: str) -> None:
        """Put a summary in the place of :meth:`older`."""
        old, kept = self._parts(keep)
        skipped = self.transcript.skipped + _answers(old)
        self.summary = summary
        self._place = 0
        self.transcript = Transcript(self.transcript.system, [self._with_summary(), *kept], skipped)

    def _parts(self, keep: int) -> tuple[list[Message], list[Message]]:
        messages = self.transcript.messages
        start = max(first_kept(messages, keep), self._place)
        old = [*messages[: self._place], *messages[self._place + 1 : start]]
        return old, messages[max(start, self._place + 1) :]

    def _with_summary(self) -> UserMessage:
        # One message, since not every provider takes two in a row from the user.
        note = f"(What was said before, and what you have done so far, in short:)\n{self.summary}"
        content = self._message.content
        if isinstance(content, str):
            return UserMessage(content=f"{content}\n\n{note}")
        return UserMessage(content=[*content, TextPart(text=note)])


def _answers(messages: Iterable[Message]) -> int:
    return sum(message.role == "assistant" for message in messages)
