"""Lives in processes of their own, to be ended by SIGKILL.

A nursery is a process that has imported what is under test and forks for each life, which is much quicker than a new
interpreter. There are two, whose strings hash differently: a set of strings has another order in the next life, as it
has after a real restart.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from types import ModuleType
from typing import Any, Self

from durably.core import DefinitionError, Event, Function
from durably.core.backend import encode_data
from durably.core.errors import UnsupportedFeatureError
from durably.core.steps import Point
from durably.testing.crash.ambient_inputs import Hidden
from durably.testing.crash.engines import Store, find_engine
from durably.testing.crash.experiment import Cell, Drive, live
from durably.testing.crash.faults import Crash, FaultPlan
from durably.testing.crash.ledger import EffectLedger
from durably.testing.crash.scenario import Scenario
from durably.testing.crash.snapshot import Snapshot

__all__ = ["Nursery"]

HASH_SEEDS = ("1", "2")


class Nursery:
    """Runs the cells of one scenario in child processes.

    Args:
        scenario: What to run. Its parts must be found by name: functions, agents and factories of modules.

    Raises:
        UnsupportedFeatureError: If another process cannot go on with what the engine keeps.
        DefinitionError: If a part cannot be found by name.
    """

    def __init__(self, scenario: Scenario) -> None:
        engine = scenario.engine
        if not engine.processes or not hasattr(os, "fork"):
            raise UnsupportedFeatureError(
                backend=engine.name,
                feature="mode='sigkill'",
                reason="what it keeps is gone with the process; use backend='sqlite'"
                if hasattr(os, "fork")
                else "no fork",
            )
        with Store() as store:
            self._function = scenario.build(store).function
        self._job = {
            "path": sys.path,
            "target": _reference(scenario.target),
            "data": json.loads(encode_data(self._function, scenario.data)),
            "engine": engine.name if find_engine(engine.name) is engine else "",
            "functions": [_reference(each) for each in scenario.functions],
            "state": None if scenario.state is None else _reference(scenario.state),
            "events": [event.model_dump() for event in scenario.events],
            "deadline": scenario.deadline,
        }
        self._processes: list[subprocess.Popen[str]] = []

    async def __aenter__(self) -> Self:
        try:
            await self._open()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def _open(self) -> None:
        for seed in HASH_SEEDS:
            environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)}
            process = subprocess.Popen(  # noqa: ASYNC220  # returns at once
                [sys.executable, "-m", "durably.testing.crash.fork_server"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                text=True,
            )
            self._processes.append(process)
            await self._ask(process, self._job)

    async def __aexit__(self, *exc_info: object) -> None:
        for process in self._processes:
            await asyncio.to_thread(process.communicate)

    async def _ask(self, process: subprocess.Popen[str], message: Any) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(message) + "\n")
        process.stdin.flush()
        answer = await asyncio.to_thread(process.stdout.readline)
        if not answer:
            raise RuntimeError("the process that runs the lives has ended; its error output tells why")
        return answer.strip()

    async def run_cell(
        self, scenario: Scenario, crashes: Sequence[Crash] = (), *, shift: int = 0, **options: Any
    ) -> Cell:
        """One cell; see :func:`durably.testing.crash.experiment.run_cell`."""
        with Store() as store:
            cell = Cell(tuple(crashes), store.run_id, EffectLedger())
            assert scenario.engine.journal is not None
            for life in range(len(crashes) + 1):
                order = {"store": str(store.path), "life": life, "shift": shift}
                order["crashes"] = [asdict(crash) for crash in crashes[life:]]
                answer = await self._ask(self._processes[(life + shift) % 2], order)
                if answer == "ended":
                    break
                if answer != "killed":
                    cell.trouble = f"the process of life {life + 1} failed: {answer}"
                    break
                cell.before.append(Snapshot.of_journal(scenario.engine.journal(store)))
            cell.after = Snapshot.of_journal(scenario.engine.journal(store))
            self._look(cell, store)
            return cell

    def _look(self, cell: Cell, store: Store) -> None:
        cell.ledger = EffectLedger(store.path / "ledger.jsonl")
        deaths = cell.ledger.of("crash")
        for crash, entry in zip(cell.crashes, deaths, strict=False):
            cell.fired.append((crash, Point(entry.at, entry.function, entry.run_id, entry.key)))
        cell.traces = [[] for _ in deaths]
        with suppress(FileNotFoundError):
            told = json.loads((store.path / "outcome.json").read_text(encoding="utf-8"))
            cell.trouble, cell.state = told["trouble"], told["state"]
            cell.traces.append([Point(*each) for each in told["trace"]])
        last = cell.history.records[-1] if len(cell.history) else None
        if last is not None and last.final:
            cell.output, cell.error = last.output, last.error
        if cell.output is not None:
            value = self._function.output.decode(cell.output, step="")
            cell.value = self._function.restore(value, cell.history)


# -- references


def _reference(thing: Any) -> list[str]:
    """Where another process finds an object: module, file, name."""
    for name in (getattr(thing, "__module__", ""), getattr(getattr(thing, "handler", None), "__module__", "")):
        module = sys.modules.get(name)
        found = None if module is None else _name_in(module, thing)
        if module is not None and found is not None:
            return [name, getattr(module, "__file__", None) or "", found]
    for name, module in list(sys.modules.items()):
        found = _name_in(module, thing) if isinstance(thing, Function) else None
        if found is not None:
            return [name, getattr(module, "__file__", None) or "", found]
    raise DefinitionError(
        f"{thing!r} is not at the top of a module, so another process cannot find it: mode='sigkill' needs the agent "
        "or its factory, and state=, as names of a module (no lambda, nothing inside a function)"
    )


def _name_in(module: ModuleType, thing: Any) -> str | None:
    return next((name for name, value in list(vars(module).items()) if value is thing), None)


def _find(reference: list[str]) -> Any:
    name, file, attribute = reference
    module = sys.modules.get(f"__nursed__{file}") or _import(name, file)
    return getattr(module, attribute)


def _import(name: str, file: str) -> ModuleType:
    if name != "__main__":
        with suppress(ImportError):
            return importlib.import_module(name)
    spec = importlib.util.spec_from_file_location(f"__nursed__{file}", file)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[f"__nursed__{file}"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# -- in the nursery


def main() -> None:
    """Read a job, then one line for each life; answer each with how it ended."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what modules print must not be taken for an answer
    job = json.loads(sys.stdin.readline())
    sys.path[:] = job["path"]
    scenario = _scenario(job)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            _be_born(scenario, json.loads(line))
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            word = "killed" if os.WTERMSIG(status) == 9 else f"signal {os.WTERMSIG(status)}"
        else:
            word = "ended" if status == 0 else f"exit status {os.WEXITSTATUS(status)}"
        print(word, file=answers, flush=True)


def _scenario(job: dict[str, Any]) -> Scenario:
    state: Callable[[Any], Any] | None = None if job["state"] is None else _find(job["state"])
    return Scenario(
        target=_find(job["target"]),
        data=job["data"],
        engine=find_engine(job["engine"]),
        functions=[_find(each) for each in job["functions"]],
        state=state,
        events=[Event(**each) for each in job["events"]],
        deadline=job["deadline"],
    )


def _be_born(scenario: Scenario, order: dict[str, Any]) -> None:
    status = 1
    try:
        asyncio.run(_one_life(scenario, order))
        status = 0
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


async def _one_life(scenario: Scenario, order: dict[str, Any]) -> None:
    store = Store(order["store"])
    ledger = EffectLedger(store.path / "ledger.jsonl")
    plan = FaultPlan([Crash(**each) for each in order["crashes"]], mode="sigkill", ledger=ledger)
    drive = Drive(scenario, store, scenario.build(store), plan)
    cell = Cell((), store.run_id, ledger)
    # Sets are left alone here: the two nurseries give them different orders by themselves.
    hidden = replace(Hidden.of_life(order["shift"] + order["life"]), order=None)
    with hidden.applied(scenario.all_functions(drive.subject)):
        await live(drive, cell)
    told = {"trouble": cell.trouble, "state": await scenario.look(drive.subject), "trace": cell.traces[-1]}
    path = store.path / "outcome.json"
    path.write_text(json.dumps(told), encoding="utf-8")


if __name__ == "__main__":
    main()
