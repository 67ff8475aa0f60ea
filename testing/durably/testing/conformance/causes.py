"""What a failure says of its cause: recorded with each attempt, told to whoever catches it, and logged once (C10, C11,
C12, C16, C24, C27).
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from durably.core import Context, InvokeError, StepError, function
from durably.testing.conformance.subject import Subject, at, heard
from durably.testing.conformance.suite import clause

BOUND = 20_000
"""Characters that a record of a failure may have."""

SECRET = "sk-live-4242-4242"


def _culprit() -> None:
    raise ValueError("no such order") from LookupError("the table is empty")


def _traces(error: StepError) -> str:
    return "\n".join(getattr(error, "__notes__", []))


@clause
async def test_c10_a_failed_attempt_is_recorded_with_its_cause(subject: Subject) -> None:
    tries: list[int] = []

    def body() -> str:
        tries.append(1)
        if len(tries) < 2:
            _culprit()
        return "done"

    @function("second-time", retries=2)
    async def second_time(ctx: Context[None]) -> str:
        return await ctx.step.run("work", body)

    with heard() as lines:
        result, history = await subject.run(second_time)
    assert (result, len(tries)) == ("done", 2)
    (failed,) = [record for record in history if record.status == "retrying"]
    error = failed.error or {}
    assert (failed.key, error.get("type"), error.get("message")) == ("work", "ValueError", "no such order")
    for part in ("_culprit", "raise ValueError", "LookupError: the table is empty", "direct cause"):
        assert part in error.get("traceback", ""), f"the traceback says {part!r}"
    assert "attempts.py" not in error["traceback"], "durably's own frames above the user's code are left out"
    assert sum("no such order" in line for line in lines) == 1, "it stands in the log, once"


@clause
async def test_c10_the_cause_of_a_failed_attempt_of_a_function_is_recorded(subject: Subject) -> None:
    @function("second-pass", retries=1)
    async def second_pass(ctx: Context[None]) -> str:
        if ctx.attempt == 1:
            _culprit()
        return "done"

    result, history = await subject.run(second_pass)
    (failed,) = [record for record in history if record.status == "retrying"]
    error = failed.error or {}
    assert (result, error.get("type"), error.get("message")) == ("done", "ValueError", "no such order")
    assert "_culprit" in error.get("traceback", "")


@clause
async def test_c11_a_step_error_shows_where_the_body_failed(subject: Subject) -> None:
    seen: list[str] = []

    @function("shows", retries=0)
    async def shows(ctx: Context[None]) -> str:
        try:
            await ctx.step.run("work", _culprit)
        except StepError as error:
            assert "_culprit" not in str(error), "what the error says, and a model reads, is its message alone"
            seen.append(f"{error}\n{_traces(error)}")
        return await ctx.step.run("rest", str.upper, "rested")

    assert await subject.crash(shows, where=at("before_body", "rest"))
    assert (await subject.run(shows))[0] == "RESTED"
    assert len(seen) > 1
    assert len(set(seen)) == 1, "an equal error on replay, its notes included"
    for part in ("_culprit", "raise ValueError", "LookupError: the table is empty"):
        assert part in seen[0], f"its notes say {part!r}"


@clause
async def test_c12_the_error_of_a_run_shows_where_it_failed(subject: Subject) -> None:
    told: list[dict[str, Any]] = []

    async def clean_up(ctx: Context[Any]) -> None:
        told.append(ctx.input["error"] if isinstance(ctx.input, dict) else ctx.input.error)

    @function("falls", retries=0, on_failure=clean_up)
    async def falls(ctx: Context[None]) -> None:
        await ctx.step.run("rest", str.upper, "rested")
        _culprit()

    async with subject.open([falls]) as backend:
        with heard() as lines:
            run = await backend.start(falls, run_id=subject.run_id())
            await run.ended()
        assert sum("no such order" in line for line in lines) == 1, "it stands in the log, once"
        await subject.until(lambda: bool(told))
        with pytest.raises(InvokeError) as caught:
            await run.result()
    for found in (_traces(caught.value), (run.view.error or {})["traceback"], told[0]["traceback"]):
        assert "_culprit" in found
        assert "LookupError: the table is empty" in found


@clause
async def test_c16_the_error_of_a_call_shows_where_the_child_failed(subject: Subject) -> None:
    seen: list[str] = []

    @function("child-falls", retries=0)
    async def child(ctx: Context[None]) -> None:
        await ctx.step.run("work", _culprit)

    @function("parent-sees", retries=0)
    async def parent(ctx: Context[None]) -> str:
        try:
            await ctx.step.invoke("call", child)
        except InvokeError as error:
            seen.append(_traces(error))
        return await ctx.step.run("rest", str.upper, "rested")

    with heard() as lines:
        assert await subject.crash(parent, child, where=at("before_body", "rest"))
        assert (await subject.run(parent, child))[0] == "RESTED"
    assert len(set(seen)) == 1, "the same on replay"
    for part in ("_culprit", "LookupError: the table is empty", "ctx.step.run"):
        assert part in seen[0], f"its notes say {part!r}"
    assert sum("no such order" in line for line in lines) == 1, "it stands in the log once, not once a layer"


@clause
async def test_c24_no_secret_is_in_a_traceback(subject: Subject) -> None:
    def leak() -> None:
        try:
            raise LookupError(f"the key {SECRET} is unknown")
        except LookupError as error:
            error.add_note(f"a note on {SECRET}")
            raise ExceptionGroup("several", [PermissionError("sk-live-4242-4242 is not allowed")]) from error

    @function("leaks", retries=1)
    async def leaks(ctx: Context[None]) -> None:
        try:
            await ctx.step.run("work", leak)
        except StepError as error:
            raise RuntimeError(f"with {SECRET}") from error

    with heard() as lines:
        error, history = await subject.fail(leaks, secrets=[SECRET])
    written = {"the log": "\n".join(lines), "the history": history.to_jsonl(), "the error": _traces(error)}  # type: ignore[arg-type]
    written["the storage"] = (subject.storage() or b"").decode(errors="replace")
    for where, found in written.items():
        assert SECRET not in found, f"the secret is in {where}"
        assert where == "the storage" or "[redacted] is not allowed" in found, f"what surrounds it is in {where}"


class _OddError(Exception):
    """Nothing about it can be had."""

    def __getattribute__(self, name: str) -> Any:
        return 1 / 0 if name in ("__notes__", "__cause__") else super().__getattribute__(name)

    def __str__(self) -> str:
        raise _OddError

    __repr__ = __str__


def _odd() -> None:
    raise _OddError


def _deep(depth: int = 0) -> None:
    (_deeper if depth % 2 else _deep)(depth + 1)


def _deeper(depth: int) -> None:
    _deep(depth + 1)


def _huge_chain() -> None:
    error: Exception | None = None
    for number in range(50):
        cause, error = error, ValueError(f"{number}: {'x' * 200_000}")
        error.__cause__ = cause
    assert error is not None
    error.add_note("n" * 9_000_000)
    raise error


def _huge_group() -> None:
    raise ExceptionGroup("many", [ExceptionGroup("more", [ValueError("y" * 100_000)] * 20)] * 20)


@clause
async def test_c27_what_is_kept_of_a_failure_is_bounded(subject: Subject) -> None:
    bodies = (_odd, _deep, _huge_chain, _huge_group)

    @function("bounded", retries=0)
    async def bounded(ctx: Context[None]) -> int:
        failed = 0
        for body in bodies:
            try:
                await ctx.step.run("work", body)
            except StepError:
                failed += 1
        return failed

    result, history = await subject.run(bounded)
    assert result == len(bodies)
    errors = [record.error for record in history if record.error is not None]
    assert len(errors) == len(bodies)
    for error in errors:
        assert error["traceback"], error["error_type"]
        assert len(json.dumps(error)) < BOUND, error["error_type"]
