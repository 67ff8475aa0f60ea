"""The agent: a frozen description of a model, its instructions and its tools. It is also a durable function.

Owns: the description, and the bodies of the loop's steps. Does not own: the loop (``loop.py``) and the steps of tools
(``tools.py``).
"""

from __future__ import annotations

import inspect
import json
import logging
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, Literal, Unpack, overload

from typing_extensions import TypeVar

from durably.core.agent_checks import check_parts
from durably.core.agent_types import AgentOptions, Instructions, ModelOptions, input_type, result_type, takes_none
from durably.core.answers import fitting, recordable
from durably.core.attempts import judged_input
from durably.core.budget import Budget
from durably.core.compaction import Compaction, checked_summary, summary_request
from durably.core.context import Context, running
from durably.core.error_text import error_text
from durably.core.errors import DefinitionError, ToolError
from durably.core.events import Event
from durably.core.fallback import FallbackModel
from durably.core.function_toolset import makes_tools, toolset
from durably.core.functions import Function, FunctionOptions, check_triggers
from durably.core.hints import hint_text
from durably.core.history import History
from durably.core.hooks import HookBodies, Hooks, check_hooks
from durably.core.loop import AgentLoop, create_agent_loop
from durably.core.messages import Message, SessionEntry, SessionPrefix, Transcript
from durably.core.model import (
    DeltaSink,
    Model,
    ModelRequest,
    ModelResponse,
    StreamingModel,
    ToolSpec,
    resolve_model,
)
from durably.core.output import OutputForm
from durably.core.pruning import pruned
from durably.core.replay import RecordedSteps
from durably.core.result import AgentInput, AgentResult
from durably.core.run_events import read_input
from durably.core.run_session import ArrivedMessage
from durably.core.serialization import Codec, codec_for
from durably.core.server_tool_approval import approval_tool
from durably.core.server_tools import RemoteMCP, ServerTool, check_server_tools, split_tools
from durably.core.session_options import OnMessage, one_run_a_session, readers
from durably.core.sessions import SessionError, SessionStore
from durably.core.sink import publish
from durably.core.steps import current_step
from durably.core.submission_bodies import SubmissionBodies
from durably.core.tool_context import AskedContext, RunContext, instructions_context
from durably.core.tool_definition import define_tool
from durably.core.tools import Tool
from durably.core.toolsets import ListedSpecs, Toolset

__all__ = ["Agent", "start_event"]

C = TypeVar("C", default=Any)
Out = TypeVar("Out", default=Any)
C1 = TypeVar("C1")
Out1 = TypeVar("Out1")
Named = TypeVar("Named", Tool, Toolset)


def start_event(agent_id: str) -> str:
    """Return the name of the event that starts an agent. ``delegate_async`` sends it."""
    return f"durably/agent.start.{agent_id}"


class Agent(HookBodies, SubmissionBodies, Function["str | AgentInput[C]", AgentResult[Out]], Generic[Out, C]):
    """A model in a loop with tools. It can be used wherever a function can.

    Args:
        name: The agent's name, which is also its id as a function.
        model: A :class:`~durably.core.Model`, or a string such as ``"anthropic:claude-opus-4-6"``.
        instructions: The system prompt, or a callable that returns it. The callable runs once, in the step
            ``load-context``, and may take one argument, ``ctx: ToolContext[Customer]``.
        tools: What the model may call: functions with type hints, tools made by :func:`~durably.core.tool`, durable
            functions, toolsets (see :func:`~durably.core.toolset`), and tools that the provider runs, such as
            :class:`~durably.core.server_tools.WebSearch`.
        output_type: A type that the final answer must fit, any that has a JSON form. The model sees its JSON schema.
            Default: free text.
        output_validator: A function of the final answer as ``output_type``, sync or async, that raises ``ValueError``
            if it will not do. The model is told what it said. It runs in a step ``check-output``.
        output_retries: How often the model is asked again for an answer that does not fit, or will not do. Then the
            run ends with the stop reason ``invalid_output``.
        context_type: The type of the ``context`` in the agent's input, which tools and instructions may ask for. A run
            needs one, unless the type takes ``None``. Default: any JSON value, or none.
        max_iterations: How many turns a run may take.
        budget: What a run may spend. See :class:`~durably.core.Budget`.
        fallback: Models to ask, in order, when ``model`` fails. See :class:`~durably.core.FallbackModel`.
        compaction: When a summary replaces the older part of a conversation. See :class:`~durably.core.Compaction`.
            Default: a conversation that is too long fails the run.
        sessions: The store of conversations, for runs with a ``session_key``: a :class:`~durably.core.SessionStore`, or
            ``"backend"`` for the one that the backend keeps beside its runs.
        save_turns: Whether a session also keeps the turns of a run that was cancelled or failed. If not, it keeps the
            user's message and what was said by runs that ended well.
        on_message: What becomes of a message that arrives while a run of its session is live. ``"queue"``: its run
            waits for the end of that. ``"steer"``: the live run takes it up at its next turn, and the message's own run
            ends with the same answer; if the live run ended before, it runs by itself. ``"cancel"``: the live run is
            cancelled. Each of them wants a ``session_key`` of every run. Default: runs do not wait for each other.
        hooks: Code of your own before and after each call of the model and of a tool, asked in this order. See
            :class:`~durably.core.Hooks`.
        model_options: Parameters of the provider's own, passed on as they are, such as ``{"temperature": 0}``. Or a
            callable that returns them: it runs once, in the step ``load-options``, and may take one argument, as
            instructions may. What it returns is recorded.
        model_timeout: Seconds that one model call may take. Default: no limit.
        stream: Whether ``think`` asks the model to show its answer while it writes it, if the model can. The pieces go
            to the backend's observers. Only the whole answer is recorded.
        sink: Gets the pieces as well, for this agent alone. It is a callable, or the name of a resource of the backend
            that is one. With a sink, ``stream`` is on.
        options: See :class:`~durably.core.functions.FunctionOptions`.

    Raises:
        DefinitionError: If two tools have one name, or a part cannot work.
    """

    __slots__ = (
        "_instructions_ask",
        "_options_ask",
        "_reader",
        "budget",
        "compaction",
        "context_codec",
        "hooks",
        "instructions",
        "max_iterations",
        "model",
        "model_options",
        "model_timeout",
        "name",
        "on_message",
        "output_form",
        "output_retries",
        "output_validator",
        "save_turns",
        "server_tools",
        "sessions",
        "sink",
        "specs",
        "stream",
        "summarizer",
        "tools",
        "toolsets",
    )

    name: str
    model: Model
    instructions: Instructions
    context_codec: Codec
    tools: Mapping[str, Tool]
    toolsets: tuple[Toolset, ...]
    specs: tuple[ToolSpec, ...]
    output_form: OutputForm | None
    output_retries: int
    output_validator: Callable[[Any], Any] | None
    server_tools: tuple[ServerTool, ...]
    max_iterations: int
    budget: Budget | None
    compaction: Compaction | None
    summarizer: Model
    sessions: SessionStore | Literal["backend"] | None
    save_turns: bool
    on_message: OnMessage | None
    hooks: tuple[Hooks, ...]
    model_options: ModelOptions
    model_timeout: float | None
    stream: bool
    sink: DeltaSink | str | None

    @overload
    def __init__(
        self: Agent[None, Any],
        name: str,
        *,
        output_type: None = None,
        context_type: None = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[Out1, Any],
        name: str,
        *,
        output_type: type[Out1],
        context_type: None = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[None, C1],
        name: str,
        *,
        output_type: None = None,
        context_type: type[C1],
        **options: Unpack[AgentOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[Out1, C1],
        name: str,
        *,
        output_type: type[Out1],
        context_type: type[C1],
        **options: Unpack[AgentOptions],
    ) -> None: ...
    @overload
    def __init__(
        self: Agent[Any, Any],
        name: str,
        *,
        output_type: object = None,
        context_type: object = None,
        **options: Unpack[AgentOptions],
    ) -> None: ...
    def __init__(
        self,
        name: str,
        *,
        model: Model | str,
        instructions: Instructions,
        tools: Sequence[Tool | Toolset | Function[Any, Any] | Callable[..., object] | ServerTool] = (),
        output_type: object = None,
        context_type: object = None,
        output_validator: Callable[[Any], Any] | None = None,
        output_retries: int = 3,
        max_iterations: int = 20,
        budget: Budget | None = None,
        fallback: Model | str | Sequence[Model | str] = (),
        compaction: Compaction | None = None,
        sessions: SessionStore | Literal["backend"] | None = None,
        save_turns: bool = True,
        on_message: OnMessage | None = None,
        hooks: Sequence[Hooks] = (),
        model_options: ModelOptions | None = None,
        model_timeout: float | None = None,
        stream: bool = False,
        sink: DeltaSink | str | None = None,
        **options: Unpack[FunctionOptions],
    ) -> None:
        check_parts(
            name,
            instructions=instructions,
            tools=tools,
            max_iterations=max_iterations,
            output_retries=output_retries,
            budget=budget,
            compaction=compaction,
        )
        if output_validator is not None and output_type is None:
            raise DefinitionError(f"agent {name!r}: output_validator= checks a typed answer: add output_type=")
        own_tools, server_tools = split_tools(tools)
        # Without the caller's locals, annotations of plain functions that name a local class would not resolve.
        names = sys._getframe(1).f_locals
        self.context_codec = codec_for(Any if context_type is None else context_type)
        self._instructions_ask = _instructions_ask(name, instructions, names, self.context_codec)
        self._options_ask = _options_ask(name, model_options, names, self.context_codec)
        made = [_made(name, each, names) for each in own_tools]
        by_name = _by_name(name, [each.bound(name, self.context_codec) for each in made if isinstance(each, Tool)])
        toolsets = [each.bound(name, self.context_codec) for each in made if isinstance(each, Toolset)]
        # Other agents start this one by its own event, without knowing its backend or its triggers.
        options["triggers"] = (*check_triggers(name, options.get("triggers", ())), start_event(name))
        if on_message is not None:
            options["singleton"] = one_run_a_session(name, on_message, sessions, options.get("singleton"))
        super().__init__(
            name,
            self._handle,  # type: ignore[arg-type]  # a str is brought to AgentInput by the validator below
            input_type=input_type(name, self.context_codec),
            output_type=result_type(name, output_type),
            uses=[used for each in by_name.values() for used in each.uses],
            **options,
        )
        self.name = name
        self.model = _first_of(model, fallback)
        self.instructions = instructions
        self.toolsets = tuple(_by_name(name, toolsets).values())
        self.specs = tuple(each.spec for each in by_name.values())
        self.output_form = None if output_type is None else OutputForm(codec_for(output_type))
        self.output_retries = output_retries
        self.output_validator = output_validator
        approvals = [approval_tool(each) for each in server_tools if isinstance(each, RemoteMCP)]
        self.tools = {**by_name, **{each.name: each for each in approvals}}
        self.server_tools = server_tools
        deferred = [each.name for each in self.specs if each.deferred]
        check_server_tools(name, server_tools, deferred, getattr(self.model, "models", (self.model,)))
        self.max_iterations = max_iterations
        self.budget = budget
        self.compaction = compaction
        self.summarizer = (
            self.model if compaction is None or compaction.model is None else resolve_model(compaction.model)
        )
        self.sessions = sessions
        self.save_turns = save_turns
        self.on_message = on_message
        self.hooks = check_hooks(name, hooks)
        self._reader = readers(sessions)
        self.model_options = model_options if callable(model_options) else dict(model_options or {})
        self.model_timeout = model_timeout
        self.stream = stream or sink is not None
        self.sink = sink

    @property
    def records_input(self) -> bool:
        """See :attr:`~durably.core.Function.records_input`. The verdict on all but the context is always the same."""
        return self.context_codec.reads_world

    @property
    def loads_options(self) -> bool:
        """Whether the model's options depend on the run."""
        return callable(self.model_options)

    async def load_options(self, run: RunContext) -> dict[str, Any]:
        """Return the model's options: the body of ``load-options``.

        Args:
            run: What the callable may know of the run, if it asks for it.
        """
        if not callable(self.model_options):
            return dict(self.model_options)
        choose: Callable[..., Any] = self.model_options
        made = choose(**({} if self._options_ask is None else self._options_ask.given(run)))
        return dict(await made if inspect.isawaitable(made) else made)

    @property
    def asks_context(self) -> bool:
        """Whether the instructions ask for a :class:`~durably.core.ToolContext`."""
        return self._instructions_ask is not None

    @property
    def takes_no_context(self) -> bool:
        """Whether a run may do without a context."""
        return takes_none(self.context_codec)

    def context_data(self, context: object) -> object:
        """Return the context of a run as JSON data."""
        return None if context is None else json.loads(self.context_codec.encode(context, step="load-context"))

    async def load_context(self, run: RunContext | None = None) -> str:
        """Return the system prompt: the body of ``load-context``.

        Args:
            run: What the instructions may know of the run, if they ask for it.
        """
        if isinstance(self.instructions, str):
            return self.instructions
        instructions: Callable[..., str | Awaitable[str]] = self.instructions
        made = instructions(**({} if self._instructions_ask is None else self._instructions_ask.given(run)))
        return await made if inspect.isawaitable(made) else made

    @property
    def needs(self) -> Mapping[str, str]:
        """See :attr:`~durably.core.Function.needs`."""
        needs = {"sessions": 'sessions="backend"'} if self.sessions == "backend" else {}
        return {**needs, "steering": 'on_message="steer"'} if self.steers else needs

    @property
    def steers(self) -> bool:
        """Whether a live run takes up the messages that arrive for its session."""
        return self.on_message == "steer"

    async def load_history(self, session_key: str | None) -> SessionPrefix | list[Message]:
        """Read the session and return how far it goes: the body of ``load-history``. Without a session, ``[]``."""
        if self._reader is None or session_key is None:
            return []
        return await self._reader().read(session_key)

    async def find_answer(self, prefix: SessionPrefix) -> str | None:
        """Return what another run answered to the message of this one, if it took it up: the body of ``find-answer``.

        Args:
            prefix: How far this run has read the session.
        """
        return None if self._reader is None else await self._reader().answer_to(current_step().run_id, prefix)

    async def read_messages(self, taken: list[str]) -> list[ArrivedMessage]:
        """Return the messages that arrived for this run's session: the body of ``read-messages``.

        Args:
            taken: The runs whose messages were read before.
        """
        info = current_step()
        waiting = () if info.services.waiting is None else info.services.waiting(info.run_id)
        new = [(each.run_id, read_input(self, each.event)) for each in waiting if each.run_id not in taken]
        return [ArrivedMessage(run_id=run_id, message=asked.message) for run_id, asked in new]

    async def _messages(self, transcript: Transcript) -> list[Message]:
        """A transcript with the messages of the session it goes on with."""
        if transcript.before is None:
            return transcript.messages
        if self._reader is None:
            raise SessionError(
                f"agent {self.name!r} has no sessions= now, and this run began with session "
                f"{transcript.before.session_key!r}: give it the store that it had"
            )
        return await self._reader().joined(transcript.before, transcript.messages)

    async def check_time(self) -> float:
        """Return the time, in seconds since 1970: the body of ``check-time``."""
        return current_step().observers.now()

    async def think(
        self,
        transcript: Transcript,
        turns_left: int | None,
        listed: ListedSpecs | None = None,
        options: dict[str, Any] | None = None,
    ) -> ModelResponse:
        """Ask the model once: the body of ``think``.

        Args:
            transcript: What the model sees of the conversation.
            turns_left: How many turns are left, this one included, if the model should be told.
            listed: The tools that its toolsets have listed for the run.
            options: The model's options, if they depend on the run.
        """
        messages = await self._messages(transcript)
        if transcript.pruned is not None:
            messages = pruned(messages, len(transcript.messages) - transcript.pruned)
        request = ModelRequest(
            system=transcript.system,
            messages=messages,
            tools=self.specs if listed is None else (*self.specs, *listed.tools),
            turn=transcript.turn,
            output_schema=None if self.output_form is None else self.output_form.schema,
            reminder=hint_text(turns_left, transcript.spent),
            server_tools=self.server_tools,
            options=(options or {}) if callable(self.model_options) else self.model_options,
        )
        if self.stream and isinstance(self.model, StreamingModel):
            response = await publish(self.model, request, self.sink)
        else:
            response = await self.model.complete(request)
        return self.finished(response, listed)

    def finished(self, response: ModelResponse, listed: ListedSpecs | None) -> ModelResponse:
        """Return an answer as it is recorded, or the promise of one.

        Args:
            response: What the model gave.
            listed: The tools that its toolsets have listed for the run.
        """
        if not isinstance(response, ModelResponse) or response.submitted is not None:
            return response  # what is no answer the step refuses, and names what it is
        kept = recordable(response)
        marked = self._marked(kept, listed, changed=kept is not response)
        if self.output_form is not None:
            marked = self.output_form.judged(marked)
        return fitting(marked, current_step().max_payload_bytes)

    async def check_output(self, output: Any) -> str | None:
        """Return what the agent's ``output_validator`` says against an answer: the body of ``check-output``.

        Args:
            output: The answer as JSON data.
        """
        form, validate = self.output_form, self.output_validator
        if form is None or validate is None:
            return None
        try:
            verdict = validate(form.codec.rebuild(output))
            if inspect.isawaitable(verdict):
                await verdict
        except (ValueError, AssertionError, ToolError) as error:
            return form.complaint(error_text(error))
        return None

    def _marked(self, response: ModelResponse, listed: ListedSpecs | None, *, changed: bool) -> ModelResponse:
        """Return an answer that says whether steps check the arguments of its calls.

        Args:
            response: The answer.
            listed: The tools of its toolsets, whose steps always do.
            changed: Whether it is not what the model wrote, which the step can explain.
        """
        known = [(self.tools[call.name], call) for call in response.message.tool_calls if call.name in self.tools]
        elsewhere = {each.name for each in listed.tools} if listed is not None else set()
        if any(call.name in elsewhere for call in response.message.tool_calls):
            return response.model_copy(update={"checked_in_steps": True})
        if not any(changed or tool.checks_in_step(call) for tool, call in known):
            return response
        return response.model_copy(update={"checked_in_steps": True})

    async def summarize(self, older: Transcript, summary: str) -> ModelResponse:
        """Have the older part of a conversation summarised: the body of ``compact``.

        Args:
            older: The messages to summarise.
            summary: The summary of what came before them, or an empty text.
        """
        instructions = "" if self.compaction is None else self.compaction.instructions
        told = summary_request(instructions, summary, await self._messages(older))
        return checked_summary(await self.summarizer.complete(told), self.summarizer)

    async def save(self, session_key: str, messages: Sequence[SessionEntry]) -> None:
        """Add the run's messages to the session, once: the body of ``save-session``."""
        if self._reader is not None:
            await self._reader().store.append(session_key, messages, key=current_step().idempotency_key)

    async def _handle(self, ctx: Context[AgentInput[C]]) -> AgentResult[Out]:
        session_key = _session_key(ctx.input, ctx.run_id)
        if ctx.input.session_key is not None and self._reader is None and self.singleton is None:
            ctx.logger.warning(
                "agent %r was given session_key=%r and has no sessions=, so it keeps nothing of what is said: write "
                'sessions="backend"',
                self.name,
                session_key,
            )
        run_loop = self._loop(ctx.input, session_key)
        return await run_loop(ctx.step, ctx.logger)

    def _loop(self, asked: AgentInput, session_key: str | None) -> AgentLoop:
        saves = self.sessions is not None and session_key is not None
        return create_agent_loop(
            self,
            asked.message,
            session_key=session_key,
            context=asked.context,
            depth=asked.depth,
            budget=asked.budget,
            save=saves,
        )

    def restore(self, result: AgentResult[Out], history: History) -> AgentResult[Out]:
        """See :meth:`~durably.core.Function.restore`. The conversation is read back from the recorded steps."""

        def messages() -> list[Message]:
            event = Event.model_validate_json(history.records[0].output or "")
            coroutine = self._replayed(event, history)
            try:
                coroutine.send(None)  # one call runs it to the end: every step is recorded, so nothing waits
            except StopIteration as end:
                replayed: AgentResult = end.value
                return replayed.messages
            raise AssertionError("a recorded step waited")

        return result.with_messages(messages)

    async def _replayed(self, event: Event, history: History) -> AgentResult:
        steps = RecordedSteps(history)
        asked: AgentInput = await judged_input(self, steps, event)
        silent = logging.getLogger(__name__)
        run_id = history.run_id
        context = Context(step=steps, event=event, input=asked, run_id=run_id, attempt=1, logger=silent, resources={})
        with running(context):
            return await self._loop(asked, _session_key(asked, run_id))(steps, None)


def _instructions_ask(
    agent: str, instructions: Instructions, names: Mapping[str, object], context: Codec
) -> AskedContext | None:
    where = f"agent {agent!r}: its instructions"
    asked = None if isinstance(instructions, str) else instructions_context(instructions, names, where)
    return None if asked is None else asked.bound(context, where)


def _options_ask(
    agent: str, options: ModelOptions | None, names: Mapping[str, object], context: Codec
) -> AskedContext | None:
    where = f"agent {agent!r}: its model_options"
    asked = instructions_context(options, names, where) if callable(options) else None
    return None if asked is None else asked.bound(context, where)


def _made(agent: str, each: object, names: Mapping[str, object]) -> Tool | Toolset:
    """Return the tool or the toolset that stands in ``tools=``."""
    if isinstance(each, Agent):
        raise DefinitionError(f"agent {agent!r}: {each!r} in its tools is an agent: write delegate({each.name})")
    if isinstance(each, Tool | Toolset):
        return each
    fn: Any = each
    return toolset(fn) if makes_tools(fn, names) else define_tool(fn, names)


def _by_name(agent: str, given: Sequence[Named]) -> dict[str, Named]:
    """Return tools, or toolsets, by their names."""
    by_name: dict[str, Named] = {}
    for each in given:
        if each.name in by_name:
            kind = "tools" if isinstance(each, Tool) else "toolsets"
            raise DefinitionError(f"agent {agent!r} has two {kind} named {each.name!r}: rename one, with name=")
        by_name[each.name] = each
    return by_name


def _first_of(model: Model | str, fallback: Model | str | Sequence[Model | str]) -> Model:
    others = [fallback] if isinstance(fallback, str) or not isinstance(fallback, Sequence) else fallback
    return FallbackModel(model, *others) if others else resolve_model(model)


def _session_key(asked: AgentInput, run_id: str) -> str | None:
    # A delegated run has a session of its own. Its run id is the same after a crash, as it comes from its parent's.
    return asked.session_key or (run_id if asked.depth else None)
