"""The table of flow control in the docs: generated from what the engines declare, and equal to it.

``python -m tests.test_flow_table`` writes it.
"""

from __future__ import annotations

from durably.core.flow_support import FLOW_CONTROL, Support
from tests.table_in_docs import ENGINES, TableInDocs


def table() -> str:
    """The table: a line for each rule, a column for each engine, and below it the notes."""
    notes: list[str] = []
    lines = ["| rule | " + " | ".join(engine.name for engine in ENGINES) + " |", "|---|" + "---|" * len(ENGINES)]
    for rule, written in FLOW_CONTROL.items():
        cells = [_cell(engine.capabilities.flow_control[rule], notes) for engine in ENGINES]
        lines.append(f"| {_code(written)} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *(f"{number}. {note}" for number, note in enumerate(notes, 1))]) + "\n"


def _code(written: str) -> str:
    option, _, rest = written.partition(", ")
    return f"`{option}`" + (f", {rest}" if rest else "")


def _cell(support: Support, notes: list[str]) -> str:
    if not support.note:
        return support.how
    note = f"{support.note[0].upper()}{support.note[1:]}."
    if note not in notes:
        notes.append(note)
    return f"{support.how} ({notes.index(note) + 1})"


TABLE = TableInDocs("functions.md", "flow control", table, "python -m tests.test_flow_table")


def test_every_engine_declares_every_rule() -> None:
    for engine in ENGINES:
        assert engine.capabilities.flow_control.keys() == FLOW_CONTROL.keys(), engine.name
        for support in engine.capabilities.flow_control.values():
            assert support.note or support.how != "refused", f"{engine.name}: a refusal needs a reason"


def test_the_docs_show_what_the_engines_declare() -> None:
    TABLE.check()


if __name__ == "__main__":
    TABLE.write()
