"""C23 and C24: how records are written, and what never is."""

from __future__ import annotations

import json
import pickle
from typing import Any

from pydantic import SecretStr

from durably.core import Context, Event, SerializationError, StepError, current_step, function
from durably.core.history import SCHEMA_VERSION, History, StepRecord
from durably.testing.conformance.subject import Subject, at, heard
from durably.testing.conformance.suite import clause

_VERSION_1 = """\
{"v":1,"run_id":"r","seq":0,"key":"","kind":"run","status":"started","name":"f","output":"{\\"name\\":\\"e\\"}","at":1.0}
{"v":1,"run_id":"r","seq":1,"key":"a","kind":"step","status":"completed","output":"[1,2]","at":2.0,"took":1.0}
{"v":1,"run_id":"r","seq":2,"key":"","kind":"run","status":"completed","name":"f","output":"3","at":3.0}
"""


async def _rows() -> list[dict[str, Any]]:
    return [{"text": "é \u2028 \U0001f600", "number": 2**60, "none": None, "deep": [[[1.5]]]}]


async def _bytes() -> bytes:
    return b"\x80\x04 not a pickle"


@function("records", retries=1)
async def _records(ctx: Context[str]) -> int:
    rows = await ctx.step.run("rows", _rows)
    await ctx.step.run("bytes", _bytes)
    await ctx.step.sleep("nap", 0)
    await ctx.step.send_event("tell", Event("c23/told", rows))
    if ctx.attempt == 1:
        raise ConnectionError("an error is data too")
    return len(rows)


@clause
async def test_c23_records_are_versioned_json(subject: Subject) -> None:
    result, history = await subject.run(_records, data="in")
    assert result == 1
    for record in history:
        assert record.v == SCHEMA_VERSION
        line = json.loads(record.to_json())
        assert line["v"] == SCHEMA_VERSION
        assert StepRecord.from_json(record.to_json()) == record
        assert record.output is None or json.loads(record.output) == record.value
    values = {record.key: record.value for record in history.steps()}
    assert values["rows"] == await _rows()
    assert History.from_jsonl(history.to_jsonl()) == history


@clause
async def test_c23_nothing_is_pickled(subject: Subject) -> None:
    await subject.crash(_records, data="in", where=at("before_start", "tell"))
    dumped, loaded = pickle.dumps, pickle.loads

    def refuse(*args: Any, **kwargs: Any) -> Any:
        raise AssertionError("something was pickled")

    pickle.dumps, pickle.loads = refuse, refuse
    try:
        result, _ = await subject.run(_records, data="in")
    finally:
        pickle.dumps, pickle.loads = dumped, loaded
    assert result == 1


@clause
async def test_c23_older_records_load_and_newer_ones_are_refused(subject: Subject) -> None:
    old = History.from_jsonl(_VERSION_1)
    assert [record.value for record in old.steps()] == [[1, 2]]
    assert old.status == "completed"
    _, history = await subject.run(_records, data="in")
    newer = history.to_jsonl().replace(f'"v":{SCHEMA_VERSION}', f'"v":{SCHEMA_VERSION + 1}')
    try:
        History.from_jsonl(newer)
    except SerializationError as error:
        assert str(SCHEMA_VERSION + 1) in str(error)
    else:
        raise AssertionError("a record of a newer schema was read as if it were known")


_SECRET = 'sk-live-4242"quoted'


@function("leaky-listener", triggers=["c24/told"])
async def _listener(ctx: Context[Any]) -> Any:
    return ctx.input


@function("leaky-child", retries=0)
async def _child(ctx: Context[Any]) -> Any:
    raise RuntimeError(f"child with {_SECRET}")


async def _value() -> dict[str, str]:
    return {"authorization": f"Bearer {_SECRET}"}


async def _raise() -> None:
    raise PermissionError(f"key {_SECRET} is not allowed")


@function("leaky", retries=1)
async def _leaky(ctx: Context[str]) -> str:
    ctx.logger.error("calling with %s", _SECRET)
    try:
        await _raise()
    except PermissionError:
        ctx.logger.exception("with a traceback")
    await ctx.step.run("value", _value)
    await ctx.step.send_event("tell", Event("c24/told", {"key": _SECRET}))
    for call in (lambda: ctx.step.run("raise", _raise), lambda: ctx.step.invoke("call", _child, _SECRET)):
        try:
            await call()
        except StepError as error:
            ctx.logger.error("it said: %s", error)  # noqa: TRY400  # the text is what is tested
    if ctx.attempt == 1:
        raise ConnectionError(f"outside, with {_SECRET}")
    raise ValueError(f"at last, with {_SECRET}")


@clause
async def test_c24_no_secret_is_written(subject: Subject) -> None:
    everything = (_leaky, _child, _listener)
    with heard() as lines:
        error, history = await subject.fail(*everything, data=f"input {_SECRET}", secrets=[_SECRET])
        async with subject.open(everything, secrets=[_SECRET]) as backend:
            text = "\n".join([(await run.history()).to_jsonl() for run in await backend.runs()])
    written = {"a log line": "\n".join(lines), "a history": text + history.to_jsonl(), "the error": str(error)}
    written["the storage"] = (subject.storage() or b"").decode(errors="replace")
    for where, found in written.items():
        for form in (_SECRET, json.dumps(_SECRET)[1:-1], "sk-live-4242"):
            assert form not in found, f"the secret is in {where}"
    assert "Bearer" in text, "what surrounds it is kept"
    assert any("calling with" in line for line in lines)
    assert any("Traceback" in line for line in lines)


@clause
async def test_c24_a_secret_resource_is_redacted_and_reaches_bodies(subject: Subject) -> None:
    seen: list[str] = []

    async def use() -> str:
        key = current_step().resources["key"].get_secret_value()
        seen.append(key)
        return f"used {key}"

    @function("resourceful")
    async def resourceful(ctx: Context[None]) -> str:
        return await ctx.step.run("use", use)

    result, history = await subject.run(resourceful, resources={"key": SecretStr("hunter2hunter2")})
    assert seen == ["hunter2hunter2"]
    assert "hunter2" not in history.to_jsonl()
    assert "hunter2" not in str(result)
    assert b"hunter2" not in (subject.storage() or b"")
