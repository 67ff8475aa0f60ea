"""Step records as Inngest keeps them: each is the output of a step there.

Inngest carries the whole state of a run with every call, so a record is as small as can be. A step that completed is
one field: its key and a digest of its input name the value, ``{"think:1/d41d8c": {...}}``. What else there is to say
stands beside it, under ``durably:``.
"""

from __future__ import annotations

import json
import re
from typing import Any

from durably.core.history import StepRecord
from durably.core.serialization import SHORT, short_digest

__all__ = ["is_fragile", "read_memo", "read_result", "write_memo", "write_result"]

OURS = "durably:"
"""Where the rest of a record stands; not a step key followed by a slash."""

_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Numbers that a JSON library of another language may give back as other ones: large integers, 1.0, 1e9.
_FRAGILE = re.compile(r"\d{16}|\d\.0(?!\d)|\d[eE][+-]?\d")


def is_fragile(text: str) -> bool:
    """Whether JSON text may come back from Inngest as other data: its numbers are floats there."""
    return _FRAGILE.search(text) is not None


def write_result(text: str) -> Any:
    """What a function returns to Inngest, from its result as JSON text."""
    return {OURS: text} if is_fragile(text) else json.loads(text)


def read_result(data: Any) -> str:
    """The JSON text of a function's result."""
    if isinstance(data, dict) and data.keys() == {OURS} and isinstance(data[OURS], str):
        text: str = data[OURS]
        return text
    return _text(data)


_NAMES = {"kind": "kind", "status": "s", "attempt": "a", "name": "n", "error": "e"}
_NAMES |= {"due": "due", "at": "t", "took": "d", "v": "v"}
_USUAL = {"kind": "step", "status": "completed", "attempt": 1, "name": "", "took": 0.0, "v": 1}


def write_memo(record: StepRecord) -> dict[str, Any]:
    """What a step returns to Inngest."""
    fields = {name: getattr(record, name) for name in _NAMES}
    if record.kind == "step" and record.status == "completed":
        del fields["at"], fields["took"]  # Inngest's trace knows them
    rest = {_NAMES[name]: value for name, value in fields.items() if value is not None and value != _USUAL.get(name)}
    value: Any = None
    if record.output is None:
        rest["o"] = 0
    elif is_fragile(record.output):
        rest["o"] = 1
        value = record.output
    else:
        value = json.loads(record.output)
    digest = short_digest(record.input).removeprefix(SHORT) if record.input else ""
    memo = {f"{record.key}/{digest}": value}
    return {**memo, OURS: rest} if rest else memo


def read_memo(data: Any, run_id: str, seq: int) -> StepRecord | None:
    """The record in a step's output, or ``None`` if it is not one of ours."""
    if not isinstance(data, dict):
        return None
    named = [name for name in data if name != OURS]
    rest = data.get(OURS, {})
    if len(named) != 1 or "/" not in named[0] or not isinstance(rest, dict):
        return None
    key, _, digest = named[0].rpartition("/")
    fields: dict[str, Any] = {"kind": "step", "status": "completed"}
    fields |= {name: rest[short] for name, short in _NAMES.items() if short in rest}
    value, how = data[named[0]], rest.get("o")
    output = None if how == 0 else value if how == 1 else _text(value)
    return StepRecord(run_id=run_id, seq=seq, key=key, input=digest and SHORT + digest, output=output, **fields)
