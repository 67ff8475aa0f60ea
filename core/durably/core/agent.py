"""The agent: a frozen description of a model, its instructions and its tools. It is also a durable function.

Owns: the description. Does not own: its tools (``agent_tools.py``), the bodies of its steps (``agent_bodies.py``), the
loop (``loop.py``) and the steps of tools (``tools.py``).
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Generic, Literal, Unpack, overload

from typing_extensions import TypeVar

from durably.core.agent_bodies import AgentBodies
from durably.core.agent_checks import check_parts
from durably.core.agent_tools import agent_tools
from durably.core.agent_types import AgentOptions, Instructions, ModelOptions, input_type, result_type
from durably.core.budget import Budget
from durably.core.compaction import Compaction
from durably.core.context import Context, running
from durably.core.events import Event
from durably.core.fallback import with_fallback
from durably.core.function_attempts import judged_input
from durably.core.functions import Function, FunctionOptions, check_triggers
from durably.core.history import History
from durably.core.hooks import Hooks, check_hooks
from durably.core.loop import AgentLoop, create_agent_loop
from durably.core.messages import Message
from durably.core.mistakes import check_known
from durably.core.model import DeltaSink, Model
from durably.core.output import OutputForm
from durably.core.replay import RecordedSteps
from durably.core.result import AgentInput, AgentResult
from durably.core.serialization import codec_for
from durably.core.server_tools import ServerTool
from durably.core.session_options import OnMessage, one_run_a_session, readers
from durably.core.sessions import SessionStore
from durably.core.tool_context import AskedContext, instructions_context
from durably.core.tools import Tool
from durably.core.toolsets import Toolset

__all__ = ["Agent", "start_event"]

C = TypeVar("C", default=Any)
Out = TypeVar("Out", default=Any)
C1 = TypeVar("C1")
Out1 = TypeVar("Out1")


def start_event(agent_id: str) -> str:
    """Return the name of the event that starts an agent. ``delegate_async`` sends it."""
    return f"durably/agent.start.{agent_id}"


class Agent(AgentBodies[Out, C], Generic[Out, C]):
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
        output_validator: A function of the final answer as ``output_type``, sync or async. It raises ``ValueError`` to
            reject the answer, and the model gets the message. It runs in a step ``check-output``.
        output_retries: How often the model may correct an invalid answer. Then the run ends with the stop reason
            ``invalid_output``.
        context_type: The type of the ``context`` in the agent's input, which tools and instructions can read. Each run
            needs one, unless the type allows ``None``. Default: any JSON value, or none.
        max_iterations: How many turns a run may take.
        budget: What a run may spend. See :class:`~durably.core.Budget`.
        fallback: Models to ask, in order, when ``model`` fails. See :class:`~durably.core.FallbackModel`.
        compaction: When a summary replaces the older part of a conversation. See :class:`~durably.core.Compaction`.
            Default: a conversation that is too long fails the run.
        sessions: The store of conversations, for runs with a ``session_key``: a :class:`~durably.core.SessionStore`, or
            ``"backend"`` for the store of the backend.
        save_turns: Whether a session also keeps the turns of a run that was cancelled or failed. If not, it keeps only
            the user's message of such a run.
        on_message: What happens to a message that arrives while a run of its session is live. ``"queue"``: its run
            waits until the live run ends. ``"steer"``: the live run reads the message before its next turn, and the
            message's own run ends with the same answer; if the live run ends before that, the message's run answers it.
            ``"cancel"``: the live run is cancelled. With each of them, every run needs a ``session_key``. Default: runs
            do not wait for each other.
        hooks: Your code before and after each model call and each tool call, in this order. See
            :class:`~durably.core.Hooks`.
        model_options: Parameters of the provider's own, passed on as they are, such as ``{"temperature": 0}``. Or a
            callable that returns them: it runs once, in the step ``load-options``, and may take one argument, as
            instructions may. What it returns is recorded.
        model_timeout: Seconds that one model call may take. Default: no limit.
        stream: Whether ``think`` streams the answer, if the model can. The pieces go to the backend's observers. Only
            the whole answer is recorded.
        sink: Also gets the pieces, of this agent only. It is a callable, or the name of a resource of the backend that
            is one. A sink turns ``stream`` on.
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

    toolsets: tuple[Toolset, ...]
    output_retries: int
    max_iterations: int
    budget: Budget | None
    sessions: SessionStore | Literal["backend"] | None
    save_turns: bool
    on_message: OnMessage | None
    hooks: tuple[Hooks, ...]
    model_timeout: float | None

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
        check_known(f"agent {name!r}", options, ["output_type", "context_type", *AgentOptions.__annotations__])
        check_parts(
            name,
            instructions=instructions,
            tools=tools,
            max_iterations=max_iterations,
            output_retries=output_retries,
            validates_text=output_validator is not None and output_type is None,
            model_options=model_options,
            sink=sink,
            model_timeout=model_timeout,
            budget=budget,
            compaction=compaction,
        )
        # Without the caller's locals, annotations of plain functions that name a local class would not resolve.
        names = sys._getframe(1).f_locals
        self.context_codec = codec_for(Any if context_type is None else context_type)
        self._instructions_ask = self._asked_by(f"agent {name!r}: its instructions", instructions, names)
        self._options_ask = self._asked_by(f"agent {name!r}: its model_options", model_options, names)
        parts = agent_tools(name, tools, names, self.context_codec)
        super().__init__(
            name,
            self._handle,  # type: ignore[arg-type]  # a str is brought to AgentInput by the validator below
            input_type=input_type(name, self.context_codec),
            output_type=result_type(name, output_type),
            uses=parts.uses,
            **_function_options(name, options, on_message, sessions),
        )
        self.name = name
        self.model = with_fallback(model, fallback)
        self.instructions = instructions
        self.tools = parts.by_name
        self.toolsets = parts.toolsets
        self.specs = parts.specs
        self.server_tools = parts.hosted
        parts.check(name, self.model)
        self.output_form = None if output_type is None else OutputForm(codec_for(output_type))
        self.output_retries = output_retries
        self.output_validator = output_validator
        self.max_iterations = max_iterations
        self.budget = budget
        self.compaction = compaction
        self.summarizer = self.model if compaction is None else compaction.summarizer(self.model)
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
    def needs(self) -> Mapping[str, str]:
        """See :attr:`~durably.core.Function.needs`."""
        needs = {"sessions": 'sessions="backend"'} if self.sessions == "backend" else {}
        return {**needs, "steering": 'on_message="steer"'} if self.steers else needs

    @property
    def steers(self) -> bool:
        """Whether a live run takes up the messages that arrive for its session."""
        return self.on_message == "steer"

    def _asked_by(self, where: str, given: object, names: Mapping[str, object]) -> AskedContext | None:
        asked = instructions_context(given, names, where) if callable(given) else None
        return None if asked is None else asked.bound(self.context_codec, where)

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


def _function_options(name: str, options: FunctionOptions, on_message: object, sessions: object) -> FunctionOptions:
    """An agent's options as a function."""
    # Other agents start this one by its own event, without knowing its backend or its triggers.
    options["triggers"] = (*check_triggers(name, options.get("triggers", ())), start_event(name))
    if on_message is not None:
        options["singleton"] = one_run_a_session(name, on_message, sessions, options.get("singleton"))
    return options


def _session_key(asked: AgentInput, run_id: str) -> str | None:
    # A delegated run has a session of its own. Its run id is the same after a crash, as it comes from its parent's.
    return asked.session_key or (run_id if asked.depth else None)
