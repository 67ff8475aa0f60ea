"""A recorded run as a pytest file: its records as a golden history, the models' answers as a script, a crash matrix."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pprint import pformat

from durably.core import Event
from durably.core.history import History, StepRecord
from durably.core.messages import TextPart, ToolCall
from durably.core.model import ModelResponse
from durably.testing.goldens import DIRECTORY

__all__ = ["ExportedTest", "export_test"]

FITS = "test_the_run_fits_the_code"
"""The test that replays the records."""

ANSWERS = ("think", "fetch-answer")
"""The steps that give what the model said; either may also say that it is not there yet."""


@dataclass(frozen=True, kw_only=True)
class ExportedTest:
    """A test, as files beside each other.

    Attributes:
        source: The test file.
        golden: The name of the file with the records, below the test file's folder.
        history: The records: all of a run that ended well, or those before the step that failed.
    """

    source: str
    golden: str
    history: History


def export_test(
    history: History, children: Sequence[History], *, stem: str, module: str, name: str, agents: Sequence[str]
) -> ExportedTest:
    """Make a test of a run.

    Args:
        history: The run.
        children: The runs that it started, directly or not.
        stem: The name of the test file, without its ending.
        module: The module of the function that ran.
        name: The function's name in it.
        agents: The names of the agents behind the function.
    """
    failed = _failed_step(history)
    scripts = _scripts([history, *children], agents)
    goes_on = history.records[-1].status == "failed" and (failed is None or failed.step_id != "think")
    last = history.records[-1]
    event = Event.model_validate_json(history.records[0].output or "")
    source = _FILE.format(
        title=f"Run {history.run_id} of {history.function}, {_how_it_went(last, failed)}".replace('"""', "'''"),
        day=datetime.fromtimestamp(history.records[0].at, UTC).date(),
        module=module,
        name=name,
        scripts=_scripts_source(scripts, next(iter(scripts), "") if goes_on else ""),
        data=pformat(event.data, width=100, sort_dicts=False),
        fits=FITS,
        ends=_END_WELL if last.status == "failed" else "",
        since=f", since={failed.key!r}" if failed is not None else "",
        where=f", from step {failed.key!r} on" if failed is not None else "",
    )
    return ExportedTest(source=source, golden=f"{DIRECTORY}/{stem}.{FITS}.jsonl", history=_before(history, failed))


def _failed_step(history: History) -> StepRecord | None:
    """The first record of the step with which a run failed, or ``None`` if it did not fail at one."""
    if history.records[-1].status != "failed":
        return None
    steps = [each for each in history if each.key]
    if not steps or steps[-1].status not in ("failed", "retrying"):
        return None
    return next(each for each in steps if each.key == steps[-1].key)


def _before(history: History, failed: StepRecord | None) -> History:
    """What a run that failed had done well: a fix must fit this, and may change what comes behind it."""
    if history.records[-1].status != "failed":
        return history
    end = history.records[-1].seq if failed is None else failed.seq
    return History([each for each in history if each.seq < end])


def _how_it_went(last: StepRecord, failed: StepRecord | None) -> str:
    if last.status != "failed":
        return f"which {last.status}" if last.final else "which was live"
    error = last.error or {}
    step = f" at step {failed.key!r}" if failed is not None else ""
    said = " ".join(str(error.get("message", "")).split())[:100].replace("\\", "/").rstrip('"')
    return f"which failed{step}: {error.get('type')}: {said}"


# -- what the models said

Scripts = dict[str, list[tuple[str | None, list[ModelResponse]]]]
"""By agent: each conversation, with the message that began it if a session came before it."""


def _scripts(histories: Sequence[History], agents: Sequence[str]) -> Scripts:
    scripts: Scripts = {}
    for history in histories:
        said = [each for each in history if each.step_id in ANSWERS and each.status == "completed" and each.output]
        name = history.function if history.function in agents else agents[0] if len(agents) == 1 else None
        if name is None or not said:
            continue
        given = [ModelResponse.model_validate_json(each.output or "") for each in said]
        answers = [each for each in given if each.submitted is None]
        scripts.setdefault(name, []).append((_message(history), answers))
    return scripts


def _message(history: History) -> str | None:
    data = Event.model_validate_json(history.records[0].output or "").data
    message = data.get("message") if isinstance(data, Mapping) else data
    return message if isinstance(message, str) else None


def _scripts_source(scripts: Scripts, unfinished: str) -> str:
    if not scripts:
        return "MODELS: dict[str, Model] = {}"
    lines = ["MODELS: dict[str, Model] = {"]
    for name, talks in scripts.items():
        messages = [message for message, _ in talks]
        if len(talks) == 1:
            lines += [f"    {name!r}: ScriptedModel(", *_replies(talks[0][1], 8)]
            lines += (
                ["        'Done.',  # not on record: the run failed before", "    ),"]
                if name == unfinished
                else ["    ),"]
            )
        elif None not in messages and len(set(messages)) == len(messages):
            lines.append(f"    {name!r}: ScriptedModel(by_message({{")
            for message, answers in talks:
                lines += [f"        {message!r}: [", *_replies(answers, 12), "        ],"]
            lines.append("    })),")
        else:
            lines.append(f"    # {name!r} had {len(talks)} conversations that begin alike: write its script here.")
    return "\n".join([*lines, "}"])


def _replies(answers: Sequence[ModelResponse], indent: int) -> list[str]:
    return [f"{' ' * indent}{_reply(answer)}," for answer in answers]


def _reply(answer: ModelResponse) -> str:
    """An answer as a script says it: text, calls, or all of it where a script has no shorter word."""
    parts = answer.message.parts
    if answer.stop_reason in ("end", "tool_calls"):
        if len(parts) == 1 and isinstance(parts[0], TextPart):
            return repr(parts[0].text)
        calls = [part for part in parts if isinstance(part, ToolCall)]
        if calls and len(calls) == len(parts) and all(map(_is_plain, calls)):
            written = [_call(part) for part in calls]
            return written[0] if len(written) == 1 else f"[{', '.join(written)}]"
    data = json.loads(answer.model_dump_json())
    return f"ModelResponse.model_validate({data!r})"


def _is_plain(part: ToolCall) -> bool:
    return isinstance(part.arguments, dict) and all(re.fullmatch(r"[a-z]\w*", name) for name in part.arguments)


def _call(part: ToolCall) -> str:
    assert isinstance(part.arguments, dict)
    return f"call({', '.join([repr(part.name), *(f'{name}={value!r}' for name, value in part.arguments.items())])})"


_END_WELL = '''

def test_the_run_ends_well() -> None:
    """Fails as long as the code fails as it did then."""

    async def main() -> None:
        with answering(TARGET, MODELS):
            async with MemoryBackend([TARGET]) as backend:
                await backend.invoke(TARGET, DATA)

    asyncio.run(main())
'''

_FILE = '''"""{title}.

Written by ``durably export --as-test`` from a run that began on {day}. The tools run as they are: put others in their
place where they reach for something real. ruff: noqa
"""

import asyncio

from durably.backends import MemoryBackend
from durably.core import Model
from durably.core.model import ModelResponse
from durably.testing import ScriptedModel, answering, by_message, call

from {module} import {name} as TARGET

DATA = {data}

{scripts}


def {fits}(golden) -> None:
    """A live run like this one could go on with the code of now."""
    asyncio.run(golden.check(TARGET, DATA))
{ends}

def test_no_crash_changes_the_run(crash_matrix) -> None:
    """Crashes everywhere{where}."""
    with answering(TARGET, MODELS):
        crash_matrix.run(TARGET, DATA{since})
'''
