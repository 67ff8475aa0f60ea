"""The picture of a crash matrix: one HTML file that needs nothing else."""

from __future__ import annotations

import json
from html import escape
from typing import Any, Protocol

from durably.core import Trace
from durably.testing.crash.faults import POINTS
from durably.testing.crash.run_rows import run_rows

__all__ = ["render_html"]

_MEANINGS = {
    "recovered": "crashed here, with the same result in the end",
    "unchanged": "crashed here, and nothing had to run again",
    "interrupted": "interrupted an at-most-once step",
    "failed": "crashed here, and a law is broken",
    "missed": "the crash did not happen",
}


class Shown(Protocol):
    """What the page shows: a report."""

    function: str
    backend: str
    seconds: float
    cells: Any
    steps: Any
    reproduce: str
    trace: Trace | None

    @property
    def ok(self) -> bool: ...
    @property
    def counts(self) -> Any: ...
    @property
    def warnings(self) -> list[str]: ...
    @property
    def left_out(self) -> int: ...


def render_html(report: Shown) -> str:
    """The page as text."""
    title = f"Crash matrix of {report.function}"
    verdict = "every crash recovered" if report.ok else "some crashes break a law"
    return _PAGE.format(
        title=escape(title),
        verdict=verdict,
        mood="good" if report.ok else "bad",
        summary=_summary(report),
        legend="".join(
            f'<span><i class="{name}"></i>{name}: {escape(text)}</span>' for name, text in _MEANINGS.items()
        ),
        warnings="".join(f"<p class=warning>{escape(warning)}</p>" for warning in report.warnings),
        grid=_grid(report),
        data=_script_data(_cells(report)),
        run=_script_data(run_rows(report.trace)),
        style=_STYLE,
        script=_SCRIPT,
    )


def _summary(report: Shown) -> str:
    counts = ", ".join(f"{count} {name}" for name, count in report.counts.items())
    left = f", {report.left_out} combinations left out" if report.left_out else ""
    return escape(f"{len(report.cells)} cells on {report.backend} in {report.seconds:.1f} s: {counts}{left}")


def _grid(report: Shown) -> str:
    """Steps across, points down; a column for the run itself stands first."""
    columns = [(report.function, "", "run", "")]
    columns += [(step.function, step.key, _name(report, step), step.guarantee) for step in report.steps]
    head = "".join(
        f'<th title="{escape(guarantee)}"><span>{escape(name)}</span></th>' for _, _, name, guarantee in columns
    )
    places: dict[tuple[str, str, str], list[int]] = {}
    for number, cell in enumerate(report.cells):
        places.setdefault((cell.function, cell.step, cell.at), []).append(number)
    rows = []
    for point in POINTS:
        found = [places.get((function, key, point), []) for function, key, _, _ in columns]
        if any(found):
            boxes = "".join(_box(report, numbers) for numbers in found)
            rows.append(f'<tr><th title="{escape(POINTS[point].meaning)}">{point}</th>{boxes}</tr>')
    whole = [number for number, cell in enumerate(report.cells) if not cell.at and cell.outcome == "failed"]
    if whole:
        rows.append(f"<tr><th>without a crash</th>{_box(report, whole)}</tr>")
    return f"<table><thead><tr><td></td>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _name(report: Shown, step: Any) -> str:
    return step.key if step.function == report.function else f"{step.function}::{step.key}"


def _box(report: Shown, numbers: list[int]) -> str:
    if not numbers:
        return "<td></td>"
    outcomes = [report.cells[number].outcome for number in numbers]
    worst = next(name for name in ("failed", "missed", "interrupted", "recovered", "unchanged") if name in outcomes)
    count = str(len(numbers)) if len(numbers) > 1 else ""
    label = escape(report.cells[numbers[0]].label)
    return f'<td><button class="{worst}" data-cells="{json.dumps(numbers)}" title="{label}">{count}</button></td>'


def _script_data(data: Any) -> str:
    return json.dumps(data, ensure_ascii=False).replace("<", "\\u003c")


def _cells(report: Shown) -> list[dict[str, Any]]:
    return [
        {
            "label": cell.label,
            "step": cell.step if cell.function == report.function else "",
            "outcome": cell.outcome,
            "restarts": cell.restarts,
            "violations": [
                {
                    "law": each.law,
                    "found": each.found,
                    "meaning": each.meaning,
                    "line": each.line,
                    "patch": each.patch,
                    "difference": [each.difference.expected, each.difference.found] if each.difference else None,
                }
                for each in cell.violations
            ],
            "timeline": [[each.life, each.side, each.text] for each in cell.timeline],
            "reproduce": report.reproduce.format(label=cell.label),
            "run": run_rows(cell.trace),
        }
        for cell in report.cells
    ]


_STYLE = """
:root { --back: #fff; --text: #1c2330; --soft: #667085; --line: #e4e7ec; --panel: #f7f8fa;
  --recovered: #2e9e6b; --unchanged: #a9c7bb; --failed: #d6363b; --missed: #e0a100; }
@media (prefers-color-scheme: dark) { :root { --back: #12161e; --text: #e6e9ef; --soft: #98a2b3; --line: #2a3240;
  --panel: #1a202b; --recovered: #35b37e; --unchanged: #3f5f54; } }
body { margin: 0; padding: 28px 32px; background: var(--back); color: var(--text);
  font: 14px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h1 b { font-size: 14px; vertical-align: 3px; margin-left: 10px;
  padding: 3px 10px; border-radius: 12px; color: #fff; } .good { background: var(--recovered); }
.bad { background: var(--failed); } .soft, .legend { color: var(--soft); }
.legend span { margin-right: 18px; white-space: nowrap; } .legend i { display: inline-block; width: 12px; height: 12px;
  border-radius: 3px; margin-right: 6px; vertical-align: -1px; }
.warning { border-left: 4px solid var(--missed); padding: 4px 12px; margin: 8px 0; background: var(--panel); }
.scroll { overflow-x: auto; margin: 18px 0; padding-bottom: 6px; } table { border-collapse: collapse; }
thead th { height: 60px; vertical-align: bottom; padding: 0; min-width: 30px; font-weight: 500; }
thead th span { display: block; writing-mode: vertical-rl; transform: rotate(180deg); margin: 0 auto 6px;
  max-height: 300px; overflow: hidden; white-space: nowrap; font-size: 12.5px; }
tbody th { text-align: right; padding-right: 12px; font-weight: 500; position: sticky; left: 0; background: var(--back);
  font-size: 12.5px; white-space: nowrap; }
td { padding: 2px; } tbody td { border-top: 1px solid var(--line); text-align: center; }
td button { width: 26px; height: 22px; border: 0; border-radius: 4px; color: #fff; font-size: 10px; cursor: pointer;
  padding: 0; vertical-align: middle; }
td button:hover, td button.on { outline: 2px solid var(--text); outline-offset: 1px; }
.recovered { background: var(--recovered); } .unchanged { background: var(--unchanged); }
.interrupted { background: #7a6fd0; } .failed { background: var(--failed); } .missed { background: var(--missed); }
#detail { background: var(--panel); border-radius: 8px; padding: 16px 20px; min-height: 60px; }
#detail h2 { font-size: 16px; margin: 0 0 8px; } #detail h2 i { display: inline-block; width: 12px; height: 12px;
  border-radius: 3px; margin-right: 8px; } .law { margin: 8px 0; } .law b { color: var(--failed); }
.patch { border-left: 4px solid var(--recovered); padding: 2px 10px; margin: 4px 0; }
.sides { font-family: ui-monospace, Menlo, Consolas, monospace; font-size: 12.5px; white-space: pre-wrap; }
.time { display: grid; grid-template-columns: 1fr 1fr; margin: 12px 0; border: 1px solid var(--line);
  border-radius: 6px; overflow: hidden; font-size: 13px; } .time div { padding: 2px 12px; }
.time .head { font-weight: 600;
  border-bottom: 1px solid var(--line); } .time .effect { grid-column: 2; } .time .journal { grid-column: 1; }
.time .more { grid-column: 1 / 3; color: var(--soft); cursor: pointer; }
.time .crash { grid-column: 1 / 3; background: var(--failed); color: #fff; text-align: center; font-weight: 600; }
code { background: var(--back); padding: 4px 8px; border-radius: 4px; user-select: all; display: inline-block; }
.run { margin: 12px 0; font-size: 12.5px; } .run div { display: grid; grid-template-columns: 300px 90px 1fr; gap: 10px;
  padding: 1px 8px; border-left: 3px solid transparent; white-space: nowrap; overflow: hidden; }
.run .here { border-left-color: var(--failed); background: var(--back); } .run span { overflow: hidden;
  text-overflow: ellipsis; } .run .said { color: var(--soft); font-family: ui-monospace, Menlo, Consolas, monospace; }
.run i { display: inline-block; width: 8px; height: 8px; border-radius: 50%; margin-right: 8px;
  background: var(--soft); }
.run .model { background: #6c7bd9; } .run .tool { background: #2e9e6b; } .run .child { background: #b568c8; }
.run .approval { background: #e0a100; } .run .event, .run .wait { background: #4aa3c7; }
#others button { margin: 2px 4px 2px 0; border: 1px solid var(--line); background: var(--back); color: var(--text);
  border-radius: 4px; cursor: pointer; font-size: 12px; }
"""

_SCRIPT = """
const cells = JSON.parse(document.getElementById('data').textContent);
const whole = JSON.parse(document.getElementById('run').textContent);
const detail = document.getElementById('detail');
const marks = { completed: '●', failed: '✗', lost: '⚡', running: '…', waiting: '…', retrying: '↻' };
function element(parent, tag, text, kind) {
  const made = document.createElement(tag);
  if (text !== undefined) made.textContent = text;
  if (kind) made.className = kind;
  parent.appendChild(made);
  return made;
}
function lines(time, all, from) {
  let row = 2;
  if (from > 0) {
    const more = element(time, 'div', '… ' + from + ' earlier lines', 'more');
    more.onclick = () => { while (time.children.length > 2) time.lastChild.remove(); lines(time, all, 0); };
    more.style.gridRow = row++;
  }
  for (const [, side, text] of all.slice(from)) element(time, 'div', text, side).style.gridRow = row++;
}
function draw(rows, here) {
  const run = element(detail, 'div', '', 'run');
  for (const each of rows) {
    const row = element(run, 'div', '', each.key === here ? 'here' : '');
    const name = element(row, 'span');
    name.style.paddingLeft = 14 * each.depth + 'px';
    element(name, 'i', '', each.role);
    name.append(each.key);
    element(row, 'span', each.attempts.map(one => marks[one] ?? one).join(' ')).title = each.attempts.join(', ');
    element(row, 'span', each.said, 'said');
  }
}
function show(number, group) {
  const cell = cells[number];
  detail.replaceChildren();
  const head = element(detail, 'h2');
  element(head, 'i', '', cell.outcome);
  head.append('crash at ' + cell.label + ': ' + cell.outcome);
  if (group.length > 1) {
    const others = element(detail, 'div');
    others.id = 'others';
    for (const each of group.slice(0, 60)) {
      const button = element(others, 'button', (cells[each].outcome === 'failed' ? '✗ ' : '') + cells[each].label);
      button.onclick = () => show(each, group);
    }
  }
  for (const each of cell.violations) {
    const law = element(detail, 'div', '', 'law');
    element(law, 'b', each.law + ' ');
    law.append(each.found);
    element(law, 'div', each.meaning, 'soft');
    if (each.line) element(law, 'div', 'in: ' + each.line, 'sides');
    if (each.patch) element(law, 'div', 'patch: ' + each.patch, 'patch');
    if (each.difference) element(law, 'div',
      'without the crash: ' + each.difference[0] + '\\nwith the crash:    ' + each.difference[1], 'sides');
  }
  if (cell.timeline.length) {
    const time = element(detail, 'div', '', 'time');
    element(time, 'div', 'journal', 'journal head');
    element(time, 'div', 'effects', 'effect head');
    const crash = cell.timeline.findIndex(([, side]) => side === 'crash');
    lines(time, cell.timeline, Math.max(0, crash - 8));
  } else if (cell.outcome !== 'missed') {
    const again = cell.restarts === 1 ? '1 body ran again.' : cell.restarts + ' bodies ran again.';
    element(detail, 'p', again + ' The result is that of the run without a crash.', 'soft');
  }
  const rows = cell.run.length ? cell.run : whole;
  element(detail, 'div', cell.run.length ? 'Its run, step by step:' : 'The run without a crash, step by step:', 'soft');
  draw(rows, cell.step);
  element(detail, 'div', 'Run it again:', 'soft');
  element(detail, 'code', cell.reproduce);
}
const buttons = [...document.querySelectorAll('td button')];
for (const button of buttons) button.onclick = () => {
  for (const each of buttons) each.classList.toggle('on', each === button);
  const group = JSON.parse(button.dataset.cells);
  show(group.find(number => cells[number].outcome === 'failed') ?? group[0], group);
};
(buttons.find(button => button.className === 'failed') ?? buttons[0])?.click();
"""

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>{style}</style></head>
<body><h1>{title}<b class="{mood}">{verdict}</b></h1>
<p class="soft">{summary}</p><p class="legend">{legend}</p>{warnings}
<div class="scroll">{grid}</div><div id="detail"></div>
<script type="application/json" id="data">{data}</script>
<script type="application/json" id="run">{run}</script><script>{script}</script></body></html>
"""
