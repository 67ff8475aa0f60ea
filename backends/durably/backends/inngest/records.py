"""Step records as Inngest keeps them: each is the output of a step there.

Inngest carries the whole state of a run with every request, so a record is as small as can be. A step that completed is
one field: its key and a digest of its input name the value, ``{"think:1/d41d8c": {...}}``. What else there is to say
stands beside it, under ``durably:``. The shape is part of what runs under way have stored: do not change it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from durably.core.history import StepRecord
from durably.core.replay import patch_record
from durably.core.serialization import SHORT, short_digest

__all__ = ["decode_patches", "decode_record", "decode_result", "encode_record", "encode_result", "is_fragile"]

OWN_FIELD = "durably:"
"""Where the rest of a record stands. No step key, a slash and a digest can look like it: it has no slash."""

_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Numbers that a JSON library of another language may give back as other ones: large integers, 1.0, 1e9.
_FRAGILE = re.compile(r"\d{16}|\d\.0(?!\d)|\d[eE][+-]?\d")


def is_fragile(text: str) -> bool:
    """Whether JSON text may come back from Inngest as other data: its numbers are floats there."""
    return _FRAGILE.search(text) is not None


def encode_result(text: str) -> Any:
    """What a function returns to Inngest, from its result as JSON text."""
    return {OWN_FIELD: text} if is_fragile(text) else json.loads(text)


def decode_result(data: Any) -> str:
    """The JSON text of a function's result, from what Inngest gives of it."""
    if isinstance(data, dict) and data.keys() == {OWN_FIELD} and isinstance(data[OWN_FIELD], str):
        text: str = data[OWN_FIELD]
        return text
    return _text(data)


_SHORT_NAMES = {"kind": "kind", "status": "s", "attempt": "a", "name": "n", "error": "e"}
_SHORT_NAMES |= {"due": "due", "at": "t", "took": "d", "v": "v"}
_USUAL = {"kind": "step", "status": "completed", "attempt": 1, "name": "", "took": 0.0, "v": 1}


def encode_record(record: StepRecord, patches: Mapping[str, bool] | None = None) -> dict[str, Any]:
    """What a step returns to Inngest, from its record.

    Args:
        record: The record.
        patches: What was answered to patches since the record before, which travels with this one.
    """
    fields = {name: getattr(record, name) for name in _SHORT_NAMES}
    if record.kind == "step" and record.status == "completed":
        del fields["at"], fields["took"]  # Inngest's trace knows them
    rest = {
        _SHORT_NAMES[name]: value for name, value in fields.items() if value is not None and value != _USUAL.get(name)
    }
    if patches:
        rest["p"] = dict(patches)
    value: Any = None
    if record.output is None:
        rest["o"] = 0
    elif is_fragile(record.output):
        rest["o"] = 1
        value = record.output
    else:
        value = json.loads(record.output)
    digest = short_digest(record.input).removeprefix(SHORT) if record.input else ""
    data = {f"{record.key}/{digest}": value}
    return {**data, OWN_FIELD: rest} if rest else data


def decode_patches(data: Any, run_id: str, seq: int) -> list[StepRecord]:
    """The records of patches in a step's output; arguments as for :func:`decode_record`."""
    rest = data.get(OWN_FIELD) if isinstance(data, dict) else None
    if not isinstance(rest, dict):
        return []
    return [
        patch_record(run_id, seq + place, patch_id, answer, rest.get("t", 0.0))
        for place, (patch_id, answer) in enumerate(rest.get("p", {}).items())
    ]


def decode_record(data: Any, run_id: str, seq: int) -> StepRecord | None:
    """The record in a step's output, or ``None`` if it is not one of ours.

    Args:
        data: The output.
        run_id: The run.
        seq: The record's place among those of the run.
    """
    if not isinstance(data, dict):
        return None
    named = [name for name in data if name != OWN_FIELD]
    rest = data.get(OWN_FIELD, {})
    if len(named) != 1 or "/" not in named[0] or not isinstance(rest, dict):
        return None
    key, _, digest = named[0].rpartition("/")
    fields: dict[str, Any] = {"kind": "step", "status": "completed"}
    fields |= {name: rest[short] for name, short in _SHORT_NAMES.items() if short in rest}
    value, how = data[named[0]], rest.get("o")
    output = None if how == 0 else value if how == 1 else _text(value)
    return StepRecord(run_id=run_id, seq=seq, key=key, input=digest and SHORT + digest, output=output, **fields)
