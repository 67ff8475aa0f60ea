"""C24 on every path on which something is written: by each kind of step, by models, tools and people, in failures, and
to those who observe a run or read its stream.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from durably.core import (
    Agent,
    AgentInput,
    Backend,
    Context,
    Event,
    FailedRun,
    RetryPolicy,
    StepError,
    function,
    tool,
)
from durably.core.errors import UnsupportedFeatureError
from durably.core.messages import AssistantMessage, TextPart, ToolCall
from durably.core.model import Delta, ModelRequest, ModelResponse
from durably.core.secrets import MASK
from durably.testing.conformance.observing import Ear
from durably.testing.conformance.subject import Subject, heard, keys
from durably.testing.conformance.suite import clause

SECRET = 'sk-live-7"7\\7-é'
"""One that JSON writes with escapes, in two forms."""

EVENT, ANSWER = "c24/event", "c24/answer"


class _AllEars(Ear):
    """Keeps what it is told of every run."""

    def _keep(self, event: Any) -> None:
        self.events.append(event)


PART = "sk-live"
"""What stands in every form that the secret may be written in."""


def _check(**written: str) -> None:
    for where, text in written.items():
        around = text[max(0, text.find(PART) - 200) :][:300]
        assert PART not in text, f"the secret is in {where}: …{around}…"


async def _everything(subject: Subject, backend: Backend, ears: _AllEars, lines: list[str]) -> str:
    """Look for the secret wherever something is kept; what the records say, to look at what is kept around it."""
    runs = list(await backend.runs())
    records = [(await run.history()).to_jsonl() for run in runs]
    views = [repr((await backend.run(run.id)).view) for run in runs]
    streams = [repr(item) for run in runs if run.status.final async for item in run.stream()]
    _check(
        histories="\n".join(records),
        views="\n".join(views),
        streams="\n".join(streams),
        observers=repr(ears.events),
        logs="\n".join(lines),
        storage=(subject.storage() or b"").decode(errors="replace"),
    )
    return "\n".join(records)


@clause
async def test_c24_no_secret_is_written_by_any_kind_of_step(subject: Subject) -> None:
    ready = asyncio.Event()
    told: list[Any] = []
    failures: list[int] = []

    @function("c24-child")
    async def child(ctx: Context[Any]) -> Any:
        return {"child says": ctx.input}

    @function("c24-failing", retries=0)
    async def failing(ctx: Context[Any]) -> None:
        raise PermissionError(f"the child knows {SECRET}")

    @function("c24-listener", triggers=[EVENT])
    async def listener(ctx: Context[Any]) -> Any:
        told.append(ctx.input)
        return ctx.input

    async def clean_up(ctx: Context[FailedRun]) -> None:
        failures.append(1)

    async def body(value: str) -> dict[str, Any]:
        return {value: [value]}

    async def bad(value: str) -> None:
        error = ValueError(f"bad {value}")
        error.add_note(f"a note on {value}")
        raise error

    async def tell() -> None:
        ready.set()

    policy = RetryPolicy(initial=subject.unit / 10, jitter=0)

    @function("c24-everything", retries=1, retry_policy=policy, on_failure=clean_up)
    async def everything(ctx: Context[Any]) -> Any:
        step = ctx.step
        await step.run("body", body, SECRET)
        await step.send_event("tell", Event(EVENT, {"key": SECRET}))
        await step.invoke("call", child, SECRET)
        answer, _ = await step.gather(
            lambda: step.wait_for_event("wait", ANSWER, match={"run": ctx.run_id, "secret": None}),
            lambda: step.run("ready", tell),
        )
        calls: tuple[Callable[[], Awaitable[Any]], ...] = (
            lambda: step.run("bad", bad, SECRET, retries=1),
            lambda: step.invoke("fails", failing, SECRET),
        )
        for call in calls:
            try:
                await call()
            except StepError as error:
                ctx.logger.warning("caught %r: %s", SECRET, error)
        if ctx.input["fails"]:
            raise RuntimeError(f"in the end {SECRET}")
        return [SECRET, answer and answer.data]

    functions = (everything, child, failing, listener)
    ears = _AllEars(subject.run_id())
    with heard() as lines:
        async with subject.open(functions, secrets=[SECRET], observers=[ears]) as backend:
            for number, fails in enumerate((False, True)):
                ready.clear()
                data = {"fails": fails, "secret": SECRET, SECRET: 1}
                run = await backend.start(everything, data, run_id=subject.run_id(number))
                await ready.wait()
                await backend.send(Event(ANSWER, {"run": run.id, "secret": None, "by": f"a person with {SECRET}"}))
                await subject.until_ended(run)
            await subject.until(lambda: len(told) == 2 and bool(failures))
            kept = await _everything(subject, backend, ears, lines)
    for around in ("the child knows", "a person with", "bad", "a note on", "in the end"):
        assert f"{around} {MASK}" in kept, f"what surrounds it is kept: {around!r}"


@clause
async def test_c24_a_match_that_names_a_secret_is_refused(subject: Subject) -> None:
    """It would be written down, and no event could fit it, since secrets are masked in events."""

    @function("c24-matching")
    async def matching(ctx: Context[None]) -> list[str]:
        refused: list[str] = []
        matches: tuple[dict[str, Any], ...] = ({"key": SECRET}, {"keys": [{"one": f"a {SECRET}"}]}, {SECRET: 1})
        for match in matches:
            try:
                await ctx.step.wait_for_event("wait", ANSWER, match=match, timeout=subject.unit)
            except ValueError as error:
                refused.append(str(error))
        return refused

    with heard() as lines:
        refused, history = await subject.run(matching, secrets=[SECRET])
    assert len(refused) == 3
    assert keys(history) == []
    storage = (subject.storage() or b"").decode(errors="replace")
    _check(errors="\n".join(refused), histories=history.to_jsonl(), logs="\n".join(lines), storage=storage)


@clause
async def test_c24_a_name_that_contains_a_secret_is_refused(subject: Subject) -> None:
    """Names are compared and shown, so they cannot be masked."""
    name = f"of {SECRET}"
    refused: list[str] = []

    async def refuse(attempt: Awaitable[Any]) -> None:
        try:
            await attempt
        except ValueError as error:
            refused.append(str(error))

    @function("c24-named")
    async def named(ctx: Context[None]) -> None:
        await refuse(ctx.step.send_event("tell", Event(EVENT, id=name)))

    with heard() as lines:
        async with subject.open([named], secrets=[SECRET]) as backend:
            await refuse(backend.start(named, run_id=name))
            await refuse(backend.start(named, run_id=subject.run_id(), tags=["fine", name]))
            await refuse(backend.send(Event(EVENT, id=name)))
            await refuse(backend.send(Event(name)))
            run = await backend.start(named, run_id=subject.run_id())
            await run.result()
            history = await run.history()
            assert run.view.tags == ()
    assert len(refused) == 5
    assert keys(history) == []
    storage = (subject.storage() or b"").decode(errors="replace")
    _check(errors="\n".join(refused), histories=history.to_jsonl(), logs="\n".join(lines), storage=storage)


class _Blabbing:
    """A model that says what it should not, in pieces."""

    name = "test:blabbing"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        raise AssertionError("the agent asks for a stream")

    async def stream(self, request: ModelRequest) -> AsyncIterator[Delta | ModelResponse]:
        text = f"it is {SECRET}."
        yield Delta(kind="text", text=text)
        parts: list[Any] = [TextPart(text=text)]
        if len(request.messages) == 1:
            parts.append(ToolCall(id="1", name="pay", arguments={"to": SECRET}))
        yield ModelResponse(message=AssistantMessage(parts=parts))


@clause
async def test_c24_no_secret_is_written_of_what_models_tools_and_people_say(subject: Subject) -> None:
    @tool(requires_approval=True)
    async def pay(to: str) -> str:
        """Pay."""
        return f"paid {SECRET}"

    def agent_with(sessions: Any) -> Agent:
        return Agent(
            "c24-agent", model=_Blabbing(), instructions=f"Say {SECRET}.", tools=[pay], stream=True, sessions=sessions
        )

    agent, ears = agent_with("backend"), _AllEars(subject.run_id())
    try:
        async with subject.open([agent], secrets=[SECRET]):
            pass
    except UnsupportedFeatureError:
        agent = agent_with(None)
    asked = AgentInput(message=f"pay {SECRET}", session_key="c24" if agent.sessions else None)
    with heard() as lines:
        async with subject.open([agent], secrets=[SECRET], observers=[ears]) as backend:
            run = await backend.start(agent, asked, run_id=subject.run_id())
            with subject.still():
                while not (pending := await backend.approvals(run=run.id)):  # noqa: ASYNC110
                    await asyncio.sleep(min(subject.unit / 100, 0.01))
                _check(question=repr(pending))
                await backend.reject(pending[0].id, f"not with {SECRET}", by=f"Ann of {SECRET}")
            result = await run.result()
            _check(result=repr(result))
            kept = await _everything(subject, backend, ears, lines)
            if agent.sessions == "backend":
                _check(session=repr(await backend.sessions.load("c24")))
    assert "not with" in kept
    assert "Ann of" in kept
