"""A scripted model: fixed rules in the place of a language model, so that the audit needs no provider and no key.

It decides as a model does, from the conversation alone: it reads the tools' results and picks the next calls.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import BaseModel

from durably.core.messages import AssistantMessage, TextPart, ToolCall, ToolResultMessage
from durably.core.model import ModelRequest, ModelResponse, Usage
from examples.audit.agent import Listing
from examples.audit.measure import Matches, Measurement
from examples.audit.report import Finding

__all__ = ["ScriptedAuditor"]

MARKS = ["TODO", "FIXME", "XXX", "HACK"]
BROAD_EXCEPTS = ["except:", "except Exception", "except BaseException"]
SILENCED = ["# type: ignore", "# noqa", "# pragma"]
PLAIN_LINKS = ["http://", "ftp://"]
UNFINISHED = ["TBD", "to be done", "lorem ipsum"]

M = TypeVar("M", bound=BaseModel)


class _Seen:
    """What the tools said so far."""

    def __init__(self, request: ModelRequest) -> None:
        self._results = [message for message in request.messages if isinstance(message, ToolResultMessage)]
        self.listing = self._all("list_files", Listing)[0]

    def _all(self, name: str, kind: type[M]) -> list[M]:
        return [kind.model_validate_json(str(each.content)) for each in self._results if each.name == name]

    @property
    def is_python(self) -> bool:
        return ".py" in self.listing.by_ending

    @property
    def measured(self) -> Measurement:
        return self._all("measure", Measurement)[0]

    @property
    def searches(self) -> list[Matches]:
        return self._all("search", Matches)

    @property
    def readings(self) -> list[str]:
        return [str(each.content) for each in self._results if each.name == "read_file"]


Call = tuple[str, dict[str, Any]]
"""The name of a tool and its arguments."""

Reply = str | list[Call]
"""Text, which ends the work, or tools to call."""


class ScriptedAuditor:
    """The model that answers when no other one is asked for. Any object with these two members is a model."""

    name = "scripted"

    async def complete(self, request: ModelRequest) -> ModelResponse:
        """Answer a request: see :class:`durably.core.Model`."""
        reply = _reply(request)
        return _response(TextPart(text=reply)) if isinstance(reply, str) else _response(*_tool_calls(request, reply))


def _tool_calls(request: ModelRequest, calls: list[Call]) -> Iterator[ToolCall]:
    for place, (name, arguments) in enumerate(calls):
        # The id is made of the place in the conversation: a model call that is repeated after a crash gives it again.
        yield ToolCall(id=f"call_{request.turn}_{place}", name=name, arguments=arguments)


def _response(*parts: TextPart | ToolCall) -> ModelResponse:
    return ModelResponse(message=AssistantMessage(parts=[*parts]), usage=Usage(input_tokens=10, output_tokens=5))


def _reply(request: ModelRequest) -> Reply:
    if request.turn == 0:
        return [("list_files", {})]
    return _TURNS[min(request.turn, len(_TURNS)) - 1](_Seen(request))


def _look(seen: _Seen) -> Reply:
    second, third = (BROAD_EXCEPTS, SILENCED) if seen.is_python else (PLAIN_LINKS, UNFINISHED)
    return [("measure", {}), *(("search", {"texts": texts}) for texts in (MARKS, second, third))]


def _read(seen: _Seen) -> Reply:
    measured = seen.measured
    places = [measured.largest_file, (measured.python and measured.python.longest_function) or measured.longest_line]
    return [("read_file", {"path": each.path, "first_line": each.line}) for each in places if each is not None]


def _note_size(seen: _Seen) -> Reply:
    measured = seen.measured
    findings = [
        Finding(
            title="Size",
            detail=f"{_count(measured.files, 'file')}, {_count(measured.lines, 'line')} "
            f"({measured.blank_lines:,} blank), {_count(measured.bytes, 'byte')}.",
        )
    ]
    largest, longest = measured.largest_file, measured.longest_line
    if largest is not None:
        opening = next((line.strip() for line in seen.readings[0].splitlines() if line.strip()), "")
        detail = f"{_count(largest.size, 'line')}; it begins: {opening[:50]}"
        findings.append(Finding(title="Largest file", detail=detail, where=largest.path))
    if measured.python is not None and (function := measured.python.longest_function) is not None:
        functions = _count(measured.python.functions, "function")
        detail = f"{function.text}, {_count(function.size, 'line')}, of {functions} in all."
        findings.append(Finding(title="Longest function", detail=detail, where=f"{function.path}:{function.line}"))
    elif longest is not None:
        where = f"{longest.path}:{longest.line}"
        findings.append(Finding(title="Longest line", detail=f"{_count(longest.size, 'character')}.", where=where))
    return _add(findings)


def _note_matches(seen: _Seen) -> Reply:
    titles = ["Marks left behind", "Broad excepts", "Silenced checks"]
    wanted = [MARKS, BROAD_EXCEPTS, SILENCED]
    if not seen.is_python:
        titles, wanted = [titles[0], "Links without encryption", "Unfinished text"], [MARKS, PLAIN_LINKS, UNFINISHED]
    findings = [
        _matched(title, texts, matches) for title, texts, matches in zip(titles, wanted, seen.searches, strict=True)
    ]
    python = seen.measured.python
    if python is not None and (python.public or python.unparsable):
        detail = f"{python.undocumented:,} of {python.public:,} public functions have none."
        if python.unparsable:
            detail += f" Not valid Python: {', '.join(python.unparsable[:3])}."
        findings.append(Finding(title="Docstrings", detail=detail))
    return _add(findings)


def _add(findings: list[Finding]) -> Reply:
    return [("add_findings", {"findings": [each.model_dump() for each in findings]})]


def _matched(title: str, texts: list[str], matches: Matches) -> Finding:
    first = f"{matches.places[0].path}:{matches.places[0].line}" if matches.places else ""
    any_of = f"{', '.join(texts[:-1])} or {texts[-1]}"
    detail = f"{_count(matches.lines, 'line')} in {_count(matches.files, 'file')} with {any_of}."
    return Finding(title=title, detail=detail, where=first)


def _answer(seen: _Seen) -> Reply:
    measured, marks = seen.measured, seen.searches[0].lines
    by_count = Counter(seen.listing.by_ending).most_common()
    kinds = ", ".join(f"{count:,} {ending}" for ending, count in by_count[:4]) + (", ..." if by_count[4:] else "")
    text = f"I looked at {_count(measured.files, 'file')} ({kinds}) with {_count(measured.lines, 'line')}."
    if measured.python is not None and (function := measured.python.longest_function) is not None:
        text += f" The first thing to split up is {function.text}, {function.size:,} lines long, in {function.path}."
    elif measured.largest_file is not None:
        text += f" The first thing to split up is {measured.largest_file.path}."
    left = (
        f"A mark such as TODO stands in {_count(marks, 'line')}." if marks else "No mark such as TODO was left behind."
    )
    return f"{text} {left}"


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


_TURNS: list[Callable[[_Seen], Reply]] = [_look, _read, _note_size, _note_matches, _answer]
