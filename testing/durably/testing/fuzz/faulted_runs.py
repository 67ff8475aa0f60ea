"""Programs under faults, held to the laws: what a test or Hypothesis calls."""

from __future__ import annotations

from collections.abc import Sequence

from durably.testing.fuzz.faults import Fault, OutsideEvent
from durably.testing.fuzz.law_checks import broken_laws
from durably.testing.fuzz.machine_stores import Evict, MachineStore
from durably.testing.fuzz.programs import Block
from durably.testing.fuzz.runner import FaultedRun
from durably.testing.laws import raise_violations

__all__ = ["run_under_faults"]


async def run_under_faults(
    block: Block,
    faults: Sequence[Fault] = (),
    events: Sequence[OutsideEvent] = (),
    *,
    fork: int | None = None,
    seed: int = 0,
    evict: Evict = "never",
    store: MachineStore | None = None,
) -> FaultedRun:
    """Run a program under faults to its end and hold it to the laws. Arguments as for :class:`FaultedRun`.

    Returns:
        The run, with the faults that struck it.

    Raises:
        BrokenLawError: If a law does not hold.
    """
    run = FaultedRun(block, faults, events, fork=fork, seed=seed, evict=evict, store=store)
    await run.run()
    raise_violations(await broken_laws(run))
    return run
