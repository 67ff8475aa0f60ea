"""C01 and C02 for drawn programs: keys and ids follow from the place of a step, and from nothing else."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from random import Random
from typing import Any

from durably.core import Context, Event, current_step, function
from durably.core.history import Kind
from durably.testing.conformance.subject import Subject, at, keys
from durably.testing.conformance.suite import clause

Program = list[Any]
"""Steps as pairs of a kind and an id; a list of programs is a ``gather`` of branches."""

KINDS: tuple[Kind, ...] = ("step", "sleep", "send_event", "invoke")

IDS = ("a", "b", "gather")
"""Few, so that ids are repeated: by steps of other kinds, in other branches, and as the name of a ``gather``."""

EVENT = "c01/told"


def _drawn(random: Random, depth: int, length: int) -> Program:
    program: Program = []
    for _ in range(length):
        if depth and random.random() < 0.4:
            program.append([_drawn(random, depth - 1, random.randint(1, 3)) for _ in range(2)])
        else:
            program.append((random.choice(KINDS), random.choice(IDS)))
    return program


def _steps(program: Program, prefix: str = "") -> Iterator[tuple[str, Kind]]:
    """The key and the kind of each step."""
    uses: Counter[str] = Counter()
    for each in program:
        name = "gather" if isinstance(each, list) else each[1]
        key = f"{prefix}{name}:{uses[name]}" if uses[name] else prefix + name
        uses[name] += 1
        if isinstance(each, tuple):
            yield key, each[0]
            continue
        for number, branch in enumerate(each):
            yield from _steps(branch, f"{key}[{number}]/")


class _World:
    """A program as a function, and what its steps were called from the outside."""

    def __init__(self, subject: Subject, program: Program) -> None:
        self.effects: dict[tuple[str, str], set[str]] = {}
        self.children: dict[str, set[str]] = {}
        self.sent: dict[str, list[list[str]]] = {}
        self.pace = Random(0)

        async def body(label: str) -> str:
            for _ in range(self.pace.randrange(4)):
                await asyncio.sleep(0)
            step = current_step()
            self.effects.setdefault((step.run_id, step.key), set()).add(step.idempotency_key)
            return label

        @function("c01-child")
        async def child(ctx: Context[dict[str, str]]) -> str:
            self.children.setdefault(ctx.input["run"], set()).add(ctx.run_id)
            return ctx.input["label"]

        @function("c01-drawn")
        async def drawn(ctx: Context[str]) -> list[Any]:
            async def run(part: Program, place: str) -> list[Any]:
                results: list[Any] = []
                for number, each in enumerate(part):
                    label = f"{ctx.input}{place}.{number}"
                    if isinstance(each, list):
                        branches = [lambda b=b, n=n: run(b, f"{label}[{n}]") for n, b in enumerate(each)]  # noqa: B023
                        results.append(list(await ctx.step.gather(*branches)))
                    else:
                        results.append(await step(each[0], each[1], label))
                return results

            async def step(kind: Kind, name: str, label: str) -> Any:
                if kind == "step":
                    return await ctx.step.run(name, body, label)
                if kind == "sleep":
                    return await ctx.step.sleep(name, 0)
                if kind == "invoke":
                    return await ctx.step.invoke(name, child, {"run": ctx.run_id, "label": label})
                self.sent.setdefault(ctx.run_id, []).append(await ctx.step.send_event(name, Event(EVENT, label)))
                return None

            found = await run(program, "")
            await ctx.step.run("last", body, "last")
            return found

        self.program = program
        self.functions = (drawn, child)

    def expected(self, data: str) -> list[Any]:
        def labels(part: Program, place: str) -> list[Any]:
            found: list[Any] = []
            for number, each in enumerate(part):
                label = f"{data}{place}.{number}"
                if isinstance(each, list):
                    found.append([labels(branch, f"{label}[{n}]") for n, branch in enumerate(each)])
                else:
                    found.append(label if each[0] in ("step", "invoke") else None)
            return found

        return labels(self.program, "")


def _program() -> Program:
    """One that has a branch in a branch, and in two branches a step of each kind with one id."""
    for seed in range(10_000):
        program = _drawn(Random(seed), 2, 4)
        steps = list(_steps(program))
        ids = Counter((kind, key.rpartition("/")[2].partition(":")[0]) for key, kind in steps)
        repeated = {kind for (kind, _), count in ids.items() if count >= 2}
        if repeated == set(KINDS) and any(key.count("/") == 2 for key, _ in steps) and len(steps) < 18:
            return program
    raise AssertionError("no seed draws such a program")


@clause
async def test_c01_the_keys_of_a_drawn_program_follow_from_its_text(subject: Subject) -> None:
    program = _program()
    world = _World(subject, program)
    wanted = [*_steps(program), ("last", "step")]
    assert len(set(wanted)) == len(wanted)
    for number, data in enumerate(("ann", "bob")):
        world.pace = Random(number)
        result, history = await subject.run(*world.functions, data=data, number=number)
        assert result == world.expected(data), "a step of another place, or of another run"
        assert sorted((record.key, record.kind) for record in history.steps()) == sorted(wanted)
        own = [key for key in keys(history) if "/" not in key]
        assert own == [key for key, _ in wanted if "/" not in key], "the function's own steps, in their order"


@clause
async def test_c02_ids_follow_from_the_run_and_the_key_alone(subject: Subject) -> None:
    world = _World(subject, _program())
    steps = list(_steps(world.program))
    for number, data in enumerate(("ann", "bob")):
        assert await subject.crash(*world.functions, data=data, number=number, where=at("before_body", "last"))
        await subject.run(*world.functions, data=data, number=number)
    count = Counter(kind for _, kind in steps)
    runs = [subject.run_id(number) for number in range(2)]
    assert all(len(each) == 1 for each in world.effects.values()), "one idempotency key for each step"
    effects = [each for found in world.effects.values() for each in found]
    assert len(set(effects)) == len(effects) == 2 * (count["step"] + 1)
    assert [len(world.children[run]) for run in runs] == [count["invoke"]] * 2, "a child for each place"
    assert not world.children[runs[0]] & world.children[runs[1]]
    sent = [{event_id for ids in world.sent[run] for event_id in ids} for run in runs]
    assert [len(ids) for ids in sent] == [count["send_event"]] * 2, "an id for each place, the same on each replay"
    assert not sent[0] & sent[1]
