"""The table of gaps in the docs: generated from what the engines declare, and equal to it.

``python -m tests.test_gap_table`` writes it.
"""

from __future__ import annotations

from tests.table_in_docs import ENGINES, TableInDocs


def table() -> str:
    """The table: a line for each gap of each engine; what several engines say in the same words stands once."""
    found: dict[tuple[str, str], list[str]] = {}
    for engine in ENGINES:
        for gap, why in engine.capabilities.gaps.items():
            found.setdefault((gap, why), []).append(engine.name)
    lines = [f"| {gap} | {', '.join(names)} | {why} |" for (gap, why), names in found.items()]
    return "\n".join(["| what is missing | on | why, and what to do |", "|---|---|---|", *lines]) + "\n"


TABLE = TableInDocs("runs.md", "gaps", table, "python -m tests.test_gap_table")


def test_each_gap_has_a_reason() -> None:
    assert all(why for engine in ENGINES for why in engine.capabilities.gaps.values())


def test_the_docs_show_what_the_engines_declare() -> None:
    TABLE.check()


if __name__ == "__main__":
    TABLE.write()
