"""Experiments in processes of their own, which are killed with SIGKILL instead of unwound.

There are two fork servers, whose strings hash differently: a set of strings has another order in the next life, as it
has after a real restart.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Self

from durably.core import Event
from durably.core.errors import UnsupportedFeatureError
from durably.core.run_input import encode_data
from durably.core.steps import Point, Probe
from durably.testing.crash.ambient_inputs import AmbientInputs
from durably.testing.crash.engines import Store, find_engine
from durably.testing.crash.experiment import Experiment, ExperimentState, run_life, world_at_end
from durably.testing.crash.faults import Crash, FaultPlan
from durably.testing.crash.fork_server import ForkServer
from durably.testing.crash.import_path import ImportPath
from durably.testing.crash.scenario import Scenario
from durably.testing.crash.worker_process import WorkerProcess, restart_until_end
from durably.testing.ledger import EffectLedger
from durably.testing.snapshot import Snapshot

__all__ = ["ProcessRunner", "live_once"]

HASH_SEEDS = (1, 2)


class ProcessRunner:
    """Runs the experiments of one scenario in worker processes.

    Args:
        scenario: What to run. Its parts must be found by name: functions, agents and factories of modules.

    Raises:
        UnsupportedFeatureError: If another process cannot go on with what the engine keeps.
        DefinitionError: If a part cannot be found by name.
    """

    def __init__(self, scenario: Scenario) -> None:
        engine = scenario.engine
        if not engine.processes or not hasattr(os, "fork"):
            reason = (
                "what it keeps is gone with the process; use backend='sqlite'" if hasattr(os, "fork") else "no fork"
            )
            raise UnsupportedFeatureError(backend=engine.name, feature="mode='sigkill'", reason=reason)
        with Store() as store:
            self._function = scenario.build(store).function
        found_by_name = [scenario.target, *scenario.functions, *([] if scenario.state is None else [scenario.state])]
        self._imports = [ImportPath.of(each) for each in found_by_name]
        self._scenario = {
            "target": ImportPath.of(scenario.target),
            "data": json.loads(encode_data(self._function, scenario.data)),
            "engine": engine.name if find_engine(engine.name) is engine else "",
            "functions": [ImportPath.of(each) for each in scenario.functions],
            "state": None if scenario.state is None else ImportPath.of(scenario.state),
            "events": [event.model_dump() for event in scenario.events],
            "deadline": scenario.deadline,
        }
        self._servers: list[ForkServer] = []

    async def __aenter__(self) -> Self:
        try:
            for seed in HASH_SEEDS:
                self._servers.append(ForkServer(live_once, imports=self._imports, hash_seed=seed))
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        for server in self._servers:
            await asyncio.to_thread(server.close)

    async def run_experiment(
        self, scenario: Scenario, crashes: Sequence[Crash] = (), *, shift: int = 0, **options: Any
    ) -> Experiment:
        """Run one experiment; see :func:`durably.testing.crash.experiment.run_experiment`."""
        with Store() as store:
            return await asyncio.to_thread(self._run, scenario, store, crashes, shift)

    def _run(self, scenario: Scenario, store: Store, crashes: Sequence[Crash], shift: int) -> Experiment:
        ledger = _ledger_of(store)
        experiment = Experiment(tuple(crashes), store.run_id, ledger)
        assert scenario.engine.journal is not None

        def start(number: int, left: Sequence[Crash]) -> WorkerProcess:
            server = self._servers[(number - 1 + shift) % len(self._servers)]
            return server.start(self._scenario, str(store.path), shift, crashes=left, number=number)

        last: WorkerProcess | None = None
        for process in restart_until_end(start, crashes):
            last = process
            process.wait()
            experiment.traces.append([report.point for report in process.reports if not report.killed])
            if process.was_killed:
                # Only now: the crash must come after the last entry that the dead process wrote.
                ledger.reload()
                self._note_death(process, experiment)
                experiment.before.append(Snapshot.of_journal(scenario.engine.journal(store)))
        experiment.after = Snapshot.of_journal(scenario.engine.journal(store))
        ledger.reload()
        assert last is not None
        self._read_end(experiment, last)
        return experiment

    def _note_death(self, process: WorkerProcess, experiment: Experiment) -> None:
        if process.crash is None:
            experiment.ledger.crashed(Point("", "", experiment.run_id, ""))
        else:
            experiment.fired.append((experiment.crashes[len(experiment.fired)], process.crash))
            experiment.ledger.crashed(process.crash)

    def _read_end(self, experiment: Experiment, last: WorkerProcess) -> None:
        if last.returncode != 0:
            experiment.trouble = f"the process of life {last.number} failed: {last.error_type}: {last.error}"
        else:
            experiment.trouble, experiment.state = last.result["trouble"], last.result["state"]
        record = experiment.history.records[-1] if len(experiment.history) else None
        if record is not None and record.final:
            experiment.output, experiment.error = record.output, record.error
        if experiment.output is not None:
            value = self._function.output.decode(experiment.output, step="")
            experiment.value = self._function.restore(value, experiment.history)


# -- in a worker process


def _scenario_of(data: dict[str, Any]) -> Scenario:
    state: Callable[[Any], Any] | None = None if data["state"] is None else ImportPath(*data["state"]).load()
    return Scenario(
        target=ImportPath(*data["target"]).load(),
        data=data["data"],
        engine=find_engine(data["engine"]),
        functions=[ImportPath(*each).load() for each in data["functions"]],
        state=state,
        events=[Event(**each) for each in data["events"]],
        deadline=data["deadline"],
    )


def _ledger_of(store: Store) -> EffectLedger:
    return EffectLedger(store.path / "ledger.jsonl")


async def live_once(probe: Probe, scenario_data: dict[str, Any], folder: str, shift: int) -> dict[str, Any]:
    """One life of an experiment: take the run up, bring it to its end, and say what the world has come to."""
    scenario, store = _scenario_of(scenario_data), Store(folder)
    ledger = _ledger_of(store)
    state = ExperimentState(scenario, store, scenario.build(store), FaultPlan(ledger=ledger), also=probe)
    experiment = Experiment((), store.run_id, ledger)
    # Sets are left alone here: the two fork servers give them different orders by themselves.
    ambient = replace(AmbientInputs.of_life(shift + ledger.life), order=None)
    with ambient.applied(scenario.all_functions(state.subject)):
        await run_life(state, experiment)
    return {"trouble": experiment.trouble, "state": await world_at_end(state, experiment)}
