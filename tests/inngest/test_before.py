"""Runs that were under way with version 0.1.0: whatever Inngest asks next, this version answers as that one did.

The requests were recorded during one run of each function, and each is sent here to an app that has seen nothing of the
run before it, at the moment when it came. What may differ in an answer is a failed run's traceback, the headers in
`tests.fixtures.exchanges.VOLATILE`, and how long a call took: whoever did not begin it does not know.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from durably.backends.inngest import InngestBackend
from durably.testing.inngest import InngestEngine
from tests.fixtures import before_functions as before
from tests.fixtures.exchanges import ask, load

ROWS = load(Path(before.__file__).with_name("before") / "inngest.jsonl")
ANSWER = ("status", "headers", "body")
SINCE = ("traceback", "checked_in_steps")
CLIENT = InngestEngine().client()
"""A client of a server that takes the events that are sent, and calls nobody."""


def _id(row: dict[str, Any]) -> str:
    steps = f"{len(row['steps'])} steps" + ("" if row["step"] == "step" else ", planned")
    return f"{row['event']['data'].get('_durably', {}).get('run') or row['fn']}: {steps}"


def _without_took(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without the seconds that an `invoke` took, if it settles one."""
    match answer["body"]:
        case [{"data": {"durably:": {"kind": "invoke", "d": float()} as rest}}]:
            del rest["d"]
    return answer


def _known_then(answer: Any) -> Any:
    """An answer without what is recorded besides since then."""
    if isinstance(answer, dict):
        return {name: _known_then(value) for name, value in answer.items() if name not in SINCE}
    return [_known_then(each) for each in answer] if isinstance(answer, list) else answer


@pytest.mark.asyncio
@pytest.mark.parametrize("hold", [0.0, 60.0], ids=["replayed", "held"])
@pytest.mark.parametrize("row", ROWS, ids=_id)
async def test_a_request_gets_the_answer_it_got(row: dict[str, Any], hold: float) -> None:
    backend = InngestBackend(CLIENT, before.FUNCTIONS, now=lambda: row["at"], hold=hold)
    before.EFFECTS.clear()
    answer = await ask(backend.app, row)
    assert _known_then(_without_took(answer)) == _without_took({key: row[key] for key in ANSWER})
    assert len(before.EFFECTS) <= 1, "a request runs one body at most"
