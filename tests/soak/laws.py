"""What must hold after a soak, checked on nothing but the ledger and the tables of the database.

Nothing of the engine is imported: a rule that is wrong there is not believed here.
"""

from __future__ import annotations

import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from tests.soak.work import EXPECTED, KEYS

__all__ = ["Facts", "broken_laws", "late_starts"]

RUN_SHIFT = 24
"""The id of a record is the number of its run, and, in so many bits, its place in the run."""

ROUNDED = 0.001
"""Seconds by which the time of a record may be off: it is kept in milliseconds."""

WOKEN_SECONDS = 1.0
"""For how long a process that was stopped may still be about what it was at."""

FINAL = ("completed", "failed", "cancelled", "skipped")

Key = tuple[str, str]
"""A run and the key of a step."""


@dataclass
class Facts:
    """The ledger and the database, as they are.

    Attributes:
        lines: The lines of the ledger by kind.
        runs: The rows of runs by id.
        records: The records of each run, in order.
        events: The events, in order.
    """

    lines: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    runs: dict[str, sqlite3.Row] = field(default_factory=dict)
    records: dict[str, list[sqlite3.Row]] = field(default_factory=lambda: defaultdict(list))
    events: list[dict[str, Any]] = field(default_factory=list)

    @classmethod
    def read(cls, directory: Path) -> Facts:
        facts = cls()
        for line in (directory / "ledger").read_text().splitlines():
            entry = json.loads(line)
            facts.lines[entry["kind"]].append(entry)
        database = sqlite3.connect(directory / "runs.db")
        database.row_factory = sqlite3.Row
        numbers = {}
        for row in database.execute("SELECT * FROM runs"):
            facts.runs[row["id"]], numbers[row["n"]] = row, row["id"]
        for row in database.execute("SELECT * FROM records ORDER BY id"):
            facts.records[numbers[row["id"] >> RUN_SHIFT]].append(row)
        facts.events = [json.loads(event) for (event,) in database.execute("SELECT event FROM events ORDER BY seq")]
        database.close()
        return facts

    @property
    def bodies(self) -> list[dict[str, Any]]:
        """A line for each body that began."""
        return self.lines["body"]

    def bodies_of(self, by: str) -> dict[Key, list[Any]]:
        """One field of the bodies of each step."""
        found: dict[Key, list[Any]] = defaultdict(list)
        for body in self.bodies:
            found[body["run"], body["key"]].append(body[by])
        return found

    def steps(self, kind: str | None, *statuses: str | None) -> Iterator[tuple[Key, sqlite3.Row]]:
        """The records of a kind of step with one of some statuses; ``None`` is a step, and completed."""
        for run, records in self.records.items():
            for record in records:
                if record["kind"] == kind and record["status"] in statuses:
                    yield (run, record["key"]), record

    def ended_at(self, run: str) -> float:
        """When the last record of a run was made."""
        return float(self.records[run][-1]["at"]) / 1e3


def broken_laws(facts: Facts) -> list[str]:
    """What does not hold, in words; empty if all is well."""
    checks = (_ends, _records, _keys, _starts, _commits, _children, _events, _queues)
    return [complaint for check in checks for complaint in check(facts)]


def _ends(facts: Facts) -> Iterator[str]:
    """Every run that was started has ended as it should, with the result that it should have."""
    for start in facts.lines["start"]:
        row = facts.runs.get(start["run"])
        if row is None:
            yield f"{start['run']} was started, and is not known"
    numbers = {start["run"]: start["n"] for start in facts.lines["start"]}
    for run, row in facts.runs.items():
        if row["status"] not in EXPECTED.get(row["function"], {"completed"}):
            yield f"{run} is {row['status']}"
        elif row["status"] == "completed" and run in numbers and row["function"] != "payer":
            output = facts.records[run][-1]["output"]
            if json.loads(output) != numbers[run]:
                yield f"{run} gave {output}"


def _records(facts: Facts) -> Iterator[str]:
    """The records of a run have no gap, and no step has two results."""
    for run, records in facts.records.items():
        if [record["id"] & ((1 << RUN_SHIFT) - 1) for record in records] != list(range(len(records))):
            yield f"the records of {run} have a gap"
        results = Counter(record["key"] for record in records if record["key"] and record["status"] in (None, "failed"))
        yield from (f"{run} has {times} results of {key}" for key, times in results.items() if times > 1)


def _keys(facts: Facts) -> Iterator[str]:
    """A step has one idempotency key, and it is its own; no two of its bodies bear one number."""
    owners: dict[str, set[Key]] = defaultdict(set)
    for step, keys in facts.bodies_of("idempotency").items():
        if len(set(keys)) > 1:
            yield f"{step} has the idempotency keys {set(keys)}"
        owners[keys[0]].add(step)
    yield from (f"{steps} share an idempotency key" for steps in owners.values() if len(steps) > 1)
    for step, attempts in facts.bodies_of("attempt").items():
        if len(set(attempts)) < len(attempts):
            yield f"the bodies of {step} had the attempts {attempts}"


def _starts(facts: Facts) -> Iterator[str]:
    """A body begins once, and once more for each crash of its run and for each attempt that failed."""
    retried = Counter(step for step, _ in facts.steps(None, "retrying"))
    for step, attempts in facts.bodies_of("attempt").items():
        crashes = len(json.loads(facts.runs[step[0]]["crashes"]))
        if len(attempts) > 1 + crashes + retried[step]:
            yield f"{step} began {len(attempts)} times, with {crashes} crashes and {retried[step]} retries"


def _commits(facts: Facts) -> Iterator[str]:
    """A result comes from a body that began, and no body begins once there is a result."""
    bodies = facts.bodies_of("attempt")
    for step, record in facts.steps(None, None):
        if facts.runs[step[0]]["function"] != "payer" and record["attempt"] not in bodies[step]:
            yield f"{step} has the result of attempt {record['attempt']}, which never began"
    late = late_starts(facts)
    woken = {(wake["victim"], wake["at"]) for wake in facts.lines["SIGCONT"]}
    for body, committed in late:
        excused = any(pid == body["pid"] and 0 <= body["at"] - at <= WOKEN_SECONDS for pid, at in woken)
        if body["attempt"] >= committed or not excused:
            yield f"{body} began after attempt {committed} was recorded"


def late_starts(facts: Facts) -> list[tuple[dict[str, Any], int]]:
    """The bodies that began after the result of their step was there, each with the attempt that gave the result.

    A process that is stopped between its last look at the clock and the first line of the body cannot know better, and
    nor can any other library. It bears the number of an earlier attempt then.
    """
    results = dict(facts.steps(None, None, "failed"))
    found = []
    for body in facts.bodies:
        result = results.get((body["run"], body["key"]))
        if result is not None and body["at"] > result["at"] / 1e3 + ROUNDED:
            found.append((body, result["attempt"]))
    return found


def _children(facts: Facts) -> Iterator[str]:
    """Each invoke starts one run."""
    children = Counter(row["parent"] for row in facts.runs.values() if row["parent"])
    invoked = Counter(run for (run, _), _ in facts.steps("invoke", "started"))
    for run in {*children, *invoked}:
        if children[run] != invoked[run]:
            yield f"{run} has invoked {invoked[run]} functions, and has {children[run]} children"


def _events(facts: Facts) -> Iterator[str]:
    """Each event is sent once, and starts one run."""
    for name, function in (("soak/asked", "asker"), ("soak/answered", "answerer")):
        sent = Counter(event["data"]["n"] for event in facts.events if event["name"] == name)
        senders = [row for row in facts.runs.values() if row["function"] == function]
        yield from (f"{name} {n} was sent {times} times" for n, times in sent.items() if times > 1)
        if len(sent) != len(senders):
            yield f"{len(senders)} runs of {function} sent {len(sent)} events {name}"
    counts = Counter(row["function"] for row in facts.runs.values())
    if counts["asker"] != counts["answerer"]:
        yield f"{counts['asker']} questions started {counts['answerer']} answerers"


def _queues(facts: Facts) -> Iterator[str]:
    """The runs of one key in a queue follow each other."""
    late = {(body["run"], body["at"]) for body, _ in late_starts(facts)}
    began: dict[str, float] = {}
    for body in facts.bodies:
        if facts.runs[body["run"]]["function"] == "queued" and (body["run"], body["at"]) not in late:
            began.setdefault(body["run"], body["at"])
    by_key: dict[int, list[str]] = defaultdict(list)
    for start in facts.lines["start"]:
        if start["run"] in began:
            by_key[start["n"] % KEYS].append(start["run"])
    for runs in by_key.values():
        for before, after in pairwise(runs):
            if facts.ended_at(before) > began[after] + ROUNDED:
                yield f"{after} began before {before} had ended"
