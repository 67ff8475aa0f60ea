"""Backends that are broken on purpose, each in one way. A suite that does not notice one proves nothing.

:data:`MUTANTS` is the list; :func:`killers` puts one through the conformance suite. All are variants of the memory
backend.
"""

from durably.testing.mutants import (
    approvals,
    causes,
    containment,
    crash_loops,
    data,
    exactness,
    failure,
    finding,
    flow_control,
    identity,
    memoization,
    observing,
    places,
    primitives,
    recovery,
    repair,
    retention,
    sessions,
    streams,
    tools,
    waiting,
    workers,
)
from durably.testing.mutants.mutant import MUTANTS, Mutant, killers, mutant

__all__ = ["MUTANTS", "Mutant", "killers", "mutant"]

_PARTS = (
    identity,
    memoization,
    recovery,
    failure,
    primitives,
    waiting,
    flow_control,
    data,
    containment,
    crash_loops,
    causes,
    observing,
    streams,
    repair,
    approvals,
    finding,
    retention,
    workers,
    tools,
    sessions,
    places,
    exactness,
)
