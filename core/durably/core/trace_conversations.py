"""The conversations of a run, put together from its records.

A model call's record keeps a digest of the conversation, not its text. The text stands in the records before it: the
instructions, the history, the answers of the model, and what each tool came to. It is put together here by the rules of
the loop, and compared with the digest, so that a trace can say whether it is exact.

Owns: finding the loops in the records, and their messages. Does not own: what became of a tool call
(``trace_tool_calls.py``), and the loop itself (``loop.py``).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Any

from pydantic import TypeAdapter, ValidationError

from durably.core.conversation import Conversation
from durably.core.events import Event
from durably.core.messages import ContentPart, Message, SessionPrefix, UserMessage, assistant, user
from durably.core.model import ModelResponse, ToolSpec
from durably.core.run_session import ArrivedMessage
from durably.core.serialization import encode_input, same_input
from durably.core.toolsets import ListedSpecs, ListedTool
from durably.core.trace_parts import TraceConversation, TraceEntry
from durably.core.trace_steps import StepDraft, is_model_answer
from durably.core.trace_tool_calls import NOT_RECORDED, Item, Scopes, is_refusal, tool_results

__all__ = ["conversations"]

LATE_TURNS = (None, 1, 2)
"""What a model call may have been told of the turns left, beside the conversation."""

KEEPS = (6, *range(21))
"""How many messages a compaction may have kept, in the order in which they are tried. 6 is the default."""

SAVES = (
    "save-message",
    "save-turn",
    "save-session",
    "save-summary",
    "find-answer",
    "check-time",
    "check-output",
    "wait-answer",
)
"""Steps of the loop that say nothing of the conversation."""

_history: TypeAdapter[list[Message] | SessionPrefix] = TypeAdapter(list[Message] | SessionPrefix)
_arrived: TypeAdapter[list[ArrivedMessage]] = TypeAdapter(list[ArrivedMessage])
_tools: TypeAdapter[list[ListedTool]] = TypeAdapter(list[ListedTool])
_content: TypeAdapter[str | list[ContentPart]] = TypeAdapter(str | list[ContentPart])


def conversations(steps: Mapping[str, StepDraft], event: Event | None) -> list[TraceConversation]:
    """Put together the conversations of a run, and note which tool call each step belongs to.

    Args:
        steps: The steps by key. Those of a tool call get its id and its arguments.
        event: What started the run: what the user said stands in its data.
    """
    scopes = _by_scope(steps.values())
    found: list[TraceConversation] = []
    for scope, items in scopes.items():
        starts = [place for place, item in enumerate(items) if _begins_loop(item)]
        for start, end in zip(starts, [*starts, len(items)][1:], strict=False):
            found.append(_LoopReader(scope, scopes, items[start:end], event).read())
    return found


def _by_scope(steps: Iterable[StepDraft]) -> Scopes:
    """What each scope met, in order: its steps, and the keys of its gathers."""
    scopes: dict[str, list[Item]] = {"": []}
    gathers: set[str] = set()

    def met(scope: str) -> list[Item]:
        if scope not in scopes:
            scopes[scope] = []
            gather = scope[: scope.rindex("[")]
            if gather not in gathers:
                gathers.add(gather)
                met(gather[: gather.rfind("/") + 1]).append(gather)
        return scopes[scope]

    for step in steps:
        met(step.scope).append(step)
    return scopes


def _begins_loop(item: Item) -> bool:
    return isinstance(item, StepDraft) and item.step_id == "load-context" and isinstance(item.value, str)


class _LoopReader:
    """Reads one loop.

    Args:
        scope: What the keys of its steps begin with.
        scopes: What each scope of the run met.
        items: What this scope met from the step ``load-context`` on.
        event: What started the run.
    """

    def __init__(self, scope: str, scopes: Scopes, items: Sequence[Item], event: Event | None) -> None:
        self._scope = scope
        self._scopes = scopes
        self._items = items
        self._event = event
        self._system: str = items[0].value if isinstance(items[0], StepDraft) else ""
        self._history: list[Message] | SessionPrefix | None = None
        self._listed: list[ToolSpec] = []
        self._options: dict[str, Any] | None = None
        self._entries: list[TraceEntry] = []
        self._conversation: Conversation | None = None
        self._answer: ModelResponse | None = None
        self._answered_by = ""
        self._since: list[Item] = []
        self._summary: tuple[str, str] | None = None
        self._exact = True

    def read(self) -> TraceConversation:
        """Read it to the end of its records."""
        readers = {
            "load-history": self._load_history,
            "load-options": self._load_options,
            "before-think": self._hook,
            "after-think": self._hook,
            "read-messages": self._take,
            "think": self._think,
            "fetch-answer": self._fetch,
            "compact": self._compact,
            "fetch-summary": self._compact,
        }
        for item in self._items[1:]:
            if isinstance(item, str):
                self._since.append(item)
            elif item.step_id in readers:
                readers[item.step_id](item)
            elif self._history is None and item.step_id.startswith("list-"):
                self._list(item)
            elif item.step_id not in SAVES:
                self._since.append(item)
        self._settle(goes_on=False)
        if self._conversation is None:
            self._begin(None)
        return TraceConversation(
            scope=self._scope,
            system=self._system,
            history=self._history or [],
            entries=self._entries,
            exact=self._exact,
        )

    def _list(self, step: StepDraft) -> None:
        """The tools of a toolset, which are listed before the history is read."""
        self._listed += [each.spec for each in _tools.validate_python(step.value or [])]

    def _load_history(self, step: StepDraft) -> None:
        self._history = _history.validate_python(step.value or [])

    def _load_options(self, step: StepDraft) -> None:
        self._options = step.value

    def _think(self, step: StepDraft) -> None:
        self._settle(goes_on=True)
        conversation = self._conversation or self._begin(step)
        if self._summary is not None:
            conversation = self._shorten(conversation, step, *self._summary)
        if not _is_asked(step, conversation):
            conversation = self._conversation = _pruned(conversation, step) or conversation
        self._exact = self._exact and _is_asked(step, conversation)
        if is_model_answer(step.value):
            self._answer = ModelResponse.model_validate(step.value)
            self._answered_by = step.key

    def _fetch(self, step: StepDraft) -> None:
        """The answer to the model call before, if the provider has given it by now."""
        if is_model_answer(step.value):
            self._answer = ModelResponse.model_validate(step.value)
            self._answered_by = step.key

    def _hook(self, step: StepDraft) -> None:
        """What a hook said before or after a model call, if it did not let it pass."""
        if is_refusal(step.value):
            if step.step_id == "before-think":
                self._settle(goes_on=True)
            self._answer = ModelResponse(message=assistant(str(step.value["reason"])))
            self._answered_by = step.key
        elif is_model_answer(step.value):
            self._answer = ModelResponse.model_validate(step.value)
            self._answered_by = step.key

    def _take(self, step: StepDraft) -> None:
        """Messages that arrived while the run was live."""
        self._settle(goes_on=True)
        for arrived in _arrived.validate_python(step.value or []):
            self._add(TraceEntry(step=step.key, message=UserMessage(content=arrived.message)))

    def _add(self, entry: TraceEntry) -> None:
        self._entries.append(entry)
        if entry.message is not None and self._conversation is not None:
            self._conversation.add(entry.message)

    def _settle(self, *, goes_on: bool) -> None:
        """Add what was answered since the last model call; ``goes_on`` says that all of it was."""
        answer, since = self._answer, self._since
        self._answer, self._since = None, []
        if answer is None:
            return
        self._add(TraceEntry(step=self._answered_by, message=answer.message))
        calls = answer.message.tool_calls
        for entry in tool_results(calls, since, self._scopes, goes_on=goes_on):
            self._add(entry)
        if not calls and goes_on and answer.stop_reason != "pause":
            # The answer did not fit the agent's output type, and the loop said so in words that no step holds.
            self._add(TraceEntry(message=user(NOT_RECORDED), recorded=False))

    # -- what the user said

    def _begin(self, step: StepDraft | None) -> Conversation:
        """The conversation as the first model call found it, tried with all that the user may have said."""
        said = list(_candidates(self._event))
        tried = (self._conversation_with(message) for message in said)
        right = next((each for each in tried if step is not None and _is_asked(step, each)), None)
        likely = self._conversation_with(said[0] if said else user(""))
        self._conversation = right or likely
        message = self._conversation.said[0]
        self._entries.append(TraceEntry(message=message, recorded=right is not None or (step is None and bool(said))))
        return self._conversation

    def _conversation_with(self, message: UserMessage) -> Conversation:
        made = Conversation(self._system, self._history or [], message)
        made.listed = ListedSpecs(self._listed) if self._listed else None
        made.options = self._options
        return made

    # -- summaries

    def _compact(self, step: StepDraft) -> None:
        self._settle(goes_on=True)
        if is_model_answer(step.value):
            self._summary = (step.key, ModelResponse.model_validate(step.value).message.text)

    def _shorten(self, conversation: Conversation, step: StepDraft, key: str, summary: str) -> Conversation:
        """Replace the older part by its summary; how much stayed is tried, as no record says it."""
        keep = next((keep for keep in KEEPS if _is_asked(step, _shortened(conversation, keep, summary))), KEEPS[0])
        self._entries.append(TraceEntry(step=key, summary=summary, keep=keep))
        self._summary = None
        conversation.compact(keep, summary)
        return conversation


def _shortened(conversation: Conversation, keep: int, summary: str) -> Conversation:
    tried = copy(conversation)
    tried.compact(keep, summary)
    return tried


def _pruned(conversation: Conversation, step: StepDraft) -> Conversation | None:
    """The conversation without old results of tools, if that is what the model saw; how much stayed is tried."""
    for keep in KEEPS:
        tried = copy(conversation)
        tried.transcript = copy(conversation.transcript)
        tried.transcript.prune(keep)
        if _is_asked(step, tried):
            return tried
    return None


def _is_asked(step: StepDraft, conversation: Conversation) -> bool:
    """Whether a model call was recorded with this conversation."""
    return any(
        same_input(step.first.input, encode_input(conversation.asked(turns), step=step.key)) for turns in LATE_TURNS
    )


def _candidates(event: Event | None) -> Iterator[UserMessage]:
    """What the user may have said, by the data of the event that started the run; the likeliest first."""
    data = None if event is None else event.data
    values: list[Any] = [data]
    if isinstance(data, dict):
        values = [data[name] for name in ("message", "text") if name in data]
        values += data.values()
    for value in values:
        if isinstance(value, str | list) and value:
            try:
                yield UserMessage(content=_content.validate_python(value))
            except ValidationError:  # a list of something else
                continue
