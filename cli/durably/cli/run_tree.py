"""A trace in a terminal: the tree of its steps beside bars of time, tokens and cost."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from durably.cli.fitted_table import Column, FittedTable
from durably.cli.text import clock_time, money, one_line, plain, pretty_json, seconds, spell_tokens
from durably.core import Trace
from durably.core.trace_parts import Attempt, Payload, StepRole, TraceStep

__all__ = ["STATUS_STYLES", "step_view", "trace_view"]

BAR = 24
"""How many characters a run's whole time takes."""

ROLE_STYLES: dict[StepRole, str] = {
    "model": "magenta",
    "tool": "cyan",
    "approval": "yellow",
    "child": "blue",
    "event": "green",
    "wait": "bright_black",
    "step": "white",
    "group": "bright_black",
}

STATUS_STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "bright_black",
    "skipped": "bright_black",
    "running": "blue",
    "waiting": "yellow",
    "retrying": "yellow",
    "stuck": "red",
    "resumed": "blue",
    "started": "blue",
}

MARKS = {"completed": "✓", "failed": "✗", "running": "▶", "waiting": "…", "retrying": "↻"}


def trace_view(trace: Trace, now: float, status: str = "") -> RenderableType:
    """The whole run.

    Args:
        trace: The run.
        now: The time up to which a live run is drawn, in seconds since 1970.
        status: Where it stands, if its engine says more of that than its records.
    """
    end = max([trace.ended_at or now, *(step.ended_at or 0.0 for step in trace.walk())])
    table = FittedTable(
        Column("step", 24),
        Column("", BAR, leaves=4),
        Column("ran", 8, leaves=1, right=True),
        Column("waited", 8, leaves=2, right=True),
        Column("tokens", 13, leaves=5, right=True),
        Column("cost", 8, leaves=3, right=True),
    )
    for name, step in _rows(trace.steps, ""):
        table.add_row(
            name,
            _bar(step, trace.started_at, end, now),
            seconds(step.running) if step.attempts else "",
            Text(seconds(step.waiting) if step.waiting else "", style="bright_black"),
            spell_tokens(step.usage),
            money(step.cost),
        )
    troubles = [line for step in trace.walk() for line in _failures(step.key, step.attempts, step.status)]
    # The last attempt of the function itself stands at the end, as the error of the run.
    troubles += _failures(trace.function, trace.attempts[: -1 if trace.ended_at else None], trace.status)
    return Group(_head(trace, end, status or trace.status), Text(), table, Text(), *troubles, *_end(trace))


def _head(trace: Trace, end: float, status: str) -> Text:
    head = Text()
    head.append(plain(trace.function), style="bold").append("  ").append(plain(trace.run_id), style="bright_black")
    head.append("\n").append(status, style=STATUS_STYLES[status])
    facts = [clock_time(trace.started_at), seconds(end - trace.started_at), spell_tokens(trace.usage)]
    facts += [f"{trace.usage.cached_tokens:,} cached" if trace.usage.cached_tokens else "", money(trace.cost)]
    head.append("".join(f"  {fact}" for fact in facts if fact))
    if trace.input is not None:
        head.append("\n").append(one_line(trace.input.text, 160), style="bright_black")
    return head


def _end(trace: Trace) -> list[RenderableType]:
    if trace.error is not None:
        return [Text(plain(f"{trace.error.get('type')}: {trace.error.get('message', '')}"), style="red")]
    return [] if trace.output is None else [Text(one_line(trace.output.text, 400))]


def _rows(steps: Sequence[TraceStep], indent: str) -> Iterator[tuple[Text, TraceStep]]:
    for step in steps:
        name = Text(indent, style="bright_black")
        if step.kind != "branch":
            own = step.key.rpartition("/")[2]
            name.append(f"{MARKS[step.status]} ", style=STATUS_STYLES[step.status])
            name.append(own, style=ROLE_STYLES[step.role])
            about = step.model or (step.name if step.role in ("child", "wait") else "")
            name.append(f" {plain(about)}" if about else "", style="bright_black")
            if len(step.attempts) > 1:
                name.append(f" ↻{len(step.attempts)}", style="yellow")
            yield name, step
            yield from _rows(step.steps, indent + "  ")
        else:
            yield from _rows(step.steps, indent + "│ ")


def _failures(name: str, attempts: Sequence[Attempt], status: str) -> Iterator[Text]:
    """What went wrong on the way: attempts that failed or were cut off."""
    style = "red" if status == "failed" else "yellow"
    for attempt in attempts:
        if attempt.outcome == "lost":
            said = "no record says how it ended: a crash cut it off, or the engine keeps only the last error"
        elif attempt.error is not None:
            said = f"{attempt.error.get('type')}: {attempt.error.get('message', '')}"
        else:
            continue
        yield (
            Text(plain(name), style="bold")
            .append(f" attempt {attempt.number}: ", style=style)
            .append(one_line(said, 300), style="default")
        )


def _bar(step: TraceStep, start: float, end: float, now: float) -> Text:
    if step.started_at is None or end <= start:
        return Text()
    scale = BAR / (end - start)
    left = min(BAR - 1, int((step.started_at - start) * scale))
    right = max(left + 1, min(BAR, round(((step.ended_at or now) - start) * scale)))
    waits = step.role in ("wait", "approval", "child") or step.status in ("waiting", "retrying")
    bar = Text(" " * left)
    return bar.append(("╌" if waits else "━") * (right - left), style=ROLE_STYLES[step.role])


def step_view(step: TraceStep) -> RenderableType:
    """One step, whole: what went in, each attempt, what came out."""
    head = Text(plain(step.key), style=f"bold {ROLE_STYLES[step.role]}")
    facts = [step.kind, step.status, step.model, step.stop_reason, spell_tokens(step.usage), money(step.cost)]
    facts += [f"call {step.call_id}" if step.call_id else "", f"run {step.child}" if step.child else ""]
    facts += [f"event {each}" for each in step.events]
    parts: list[RenderableType] = [head, Text(plain("  ".join(fact for fact in facts if fact)), style="bright_black")]
    for attempt in step.attempts:
        took = (attempt.ended_at or 0) - (attempt.started_at or 0) if attempt.ended_at and attempt.started_at else None
        line = f"attempt {attempt.number}  {attempt.outcome}  {clock_time(attempt.started_at)}  {seconds(took)}"
        said = f"  {attempt.error.get('type')}: {attempt.error.get('message', '')}" if attempt.error else ""
        parts.append(Text(plain(line.rstrip() + said)))
    parts += [*_payload("input", step.input), *_payload("output", step.output)]
    if step.error is not None:
        parts += [Text("\nerror", style="red"), Text(plain(str(step.error.get("message") or step.error)))]
    return Group(*parts)


def _payload(what: str, payload: Payload | None) -> list[RenderableType]:
    if payload is None:
        return []
    note = " (a digest; the text was not recorded)" if payload.is_digest else ""
    return [Text(f"\n{what}{note}", style="bright_black"), Text(plain(pretty_json(payload.text)))]
