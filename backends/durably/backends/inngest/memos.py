"""Step records as Inngest keeps them: each is the output of a step there, with the value in sight."""

from __future__ import annotations

import json
import re
from typing import Any

from durably.core import StepRecord

__all__ = ["read_memo", "write_memo"]

OURS = "durably"
"""Where the record stands, beside the value."""

_text = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode

# Numbers that a JSON library of another language may give back as other ones: large integers, 1.0, 1e9.
_FRAGILE = re.compile(r"\d{16}|\d\.0(?!\d)|\d[eE][+-]?\d")

_SHORT = {"key": "k", "kind": "kind", "status": "s", "attempt": "a", "name": "n", "input": "i", "error": "e"}
_SHORT |= {"due": "due", "at": "t", "took": "d", "v": "v"}
_USUAL = {"kind": "step", "status": "completed", "attempt": 1, "name": "", "input": "", "took": 0.0, "v": 1}


def write_memo(record: StepRecord) -> dict[str, Any]:
    """What a step returns to Inngest."""
    fields = {name: getattr(record, name) for name in _SHORT}
    kept = {_SHORT[name]: value for name, value in fields.items() if value is not None and value != _USUAL.get(name)}
    memo: dict[str, Any] = {OURS: kept}
    if record.output is not None:
        if _FRAGILE.search(record.output):
            memo["text"] = record.output
        else:
            memo["value"] = json.loads(record.output)
    return memo


def read_memo(data: Any, run_id: str, seq: int) -> StepRecord | None:
    """The record in a step's output, or ``None`` if it is not one of ours."""
    if not isinstance(data, dict) or not isinstance(data.get(OURS), dict):
        return None
    kept = data[OURS]
    fields = {name: kept[short] for name, short in _SHORT.items() if short in kept}
    output = data.get("text")
    if "value" in data:
        output = _text(data["value"])
    return StepRecord(
        run_id=run_id, seq=seq, output=output, **{"key": "", "kind": "step", "status": "completed", **fields}
    )
