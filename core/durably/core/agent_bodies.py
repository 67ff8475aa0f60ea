"""The bodies of an agent's steps: methods of the agent, so that any worker finds them by their names.

Does not own: what an agent is made of (``agent.py``), when each step runs (``loop.py``), and the steps of its tools
(``tools.py``).
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic

from typing_extensions import TypeVar

from durably.core.agent_types import Instructions, ModelOptions, takes_none
from durably.core.answers import fitting, recordable
from durably.core.compaction import Compaction, checked_summary, summary_request
from durably.core.error_text import error_text, shown
from durably.core.errors import NonRetriableError, ToolError
from durably.core.functions import Function
from durably.core.hints import hint_text
from durably.core.hooks import HookBodies
from durably.core.messages import Message, SessionEntry, SessionPrefix, Transcript
from durably.core.model import DeltaSink, Model, ModelRequest, ModelResponse, StreamingModel, ToolSpec
from durably.core.output import OutputForm
from durably.core.pruning import pruned
from durably.core.result import AgentInput, AgentResult
from durably.core.run_events import read_input
from durably.core.run_session import ArrivedMessage
from durably.core.serialization import Codec
from durably.core.server_tools import ServerTool
from durably.core.sessions import SessionError, SessionReader
from durably.core.sink import publish
from durably.core.steps import current_step
from durably.core.submission_bodies import SubmissionBodies
from durably.core.tool_context import AskedContext, RunContext
from durably.core.tools import Tool
from durably.core.toolsets import ListedSpecs

__all__ = ["AgentBodies"]

C = TypeVar("C", default=Any)
Out = TypeVar("Out", default=Any)


class AgentBodies(HookBodies, SubmissionBodies, Function[str | AgentInput[C], AgentResult[Out]], Generic[Out, C]):
    """What an agent does in its steps. The attributes are what it needs for that; the agent has them."""

    __slots__ = ()

    name: str
    model: Model
    instructions: Instructions
    context_codec: Codec
    tools: Mapping[str, Tool]
    specs: tuple[ToolSpec, ...]
    server_tools: tuple[ServerTool, ...]
    output_form: OutputForm | None
    output_validator: Callable[[Any], Any] | None
    compaction: Compaction | None
    summarizer: Model
    model_options: ModelOptions
    stream: bool
    sink: DeltaSink | str | None
    _instructions_ask: AskedContext | None
    _options_ask: AskedContext | None
    _reader: Callable[[], SessionReader] | None

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
        options = await made if inspect.isawaitable(made) else made
        if not isinstance(options, Mapping):
            raise NonRetriableError(
                f"model_options= must return a dict of the provider's parameters, not {shown(options)}"
            )
        return dict(options)

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
        waiting = () if info.services.waiting is None else await info.services.waiting(info.run_id, taken)
        new = [(each.run_id, read_input(self, each.event)) for each in waiting]
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
        """Return an answer that says whether steps check the arguments of its calls, and agents share the budget.

        Args:
            response: The answer.
            listed: The tools of its toolsets, whose steps always do.
            changed: Whether it is not what the model wrote, which the step can explain.
        """
        elsewhere = {each.name for each in listed.tools} if listed is not None else set()
        checked, drawing = False, 0
        for call in response.message.tool_calls:
            tool = self.tools.get(call.name)
            checked = checked or call.name in elsewhere or (tool is not None and (changed or tool.checks_in_step(call)))
            drawing += tool is not None and tool.draws_on_budget
        if not checked and not drawing:
            return response
        marks = {"checked_in_steps": checked, "shares_budget": drawing > 0, "budget_shares": max(drawing, 1)}
        return response.model_copy(update=marks)

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
