"""The contract as tests that anyone's backend can be put through.

In a test file of your own::

    from durably.testing.conformance import *  # noqa: F403  # brings the tests

    @pytest.fixture
    def subject(tmp_path):
        return MySubject(tmp_path)

A :class:`Subject` says how to open the backend again on the same storage. Backends that have something to declare
list it in :attr:`Subject.gaps`.
"""

import pytest

_PARTS = (
    "identity",
    "drawn_programs",
    "memoization",
    "recovery",
    "replay",
    "failure",
    "refusal",
    "primitives",
    "waiting",
    "control",
    "flow_control",
    "data",
    "approvals",
    "finding",
    "causes",
    "containment",
    "values",
    "retention",
    "workers",
    "repair",
    "patches",
    "crash_loops",
    "observing",
    "streams",
    "tools",
    "sessions",
    "places",
    "exactness",
    "changed_code",
    "changed_types",
    "delays",
    "ends",
    "redaction",
    "rules_of_flow",
)

# Before they are imported: a failed assertion then shows its values.
pytest.register_assert_rewrite(*(f"{__name__}.{part}" for part in _PARTS))

from durably.testing.conformance import (  # noqa: E402
    approvals,
    causes,
    changed_code,
    changed_types,
    containment,
    control,
    crash_loops,
    data,
    delays,
    drawn_programs,
    ends,
    exactness,
    failure,
    finding,
    flow_control,
    identity,
    memoization,
    observing,
    patches,
    places,
    primitives,
    recovery,
    redaction,
    refusal,
    repair,
    replay,
    retention,
    rules_of_flow,
    sessions,
    streams,
    tools,
    values,
    waiting,
    workers,
)
from durably.testing.conformance.subject import Kill, MemorySubject, Subject  # noqa: E402
from durably.testing.conformance.suite import (  # noqa: E402
    CLAUSES,
    TESTS,
    Outcome,
    Report,
    check,
    load_gaps,
    save_gaps,
)

for _part in (
    identity,
    drawn_programs,
    memoization,
    recovery,
    replay,
    failure,
    refusal,
    primitives,
    waiting,
    control,
    flow_control,
    data,
    approvals,
    finding,
    causes,
    containment,
    values,
    retention,
    workers,
    repair,
    patches,
    crash_loops,
    observing,
    streams,
    tools,
    sessions,
    places,
    exactness,
    changed_code,
    changed_types,
    delays,
    ends,
    redaction,
    rules_of_flow,
):
    globals().update({name: test for name, test in vars(_part).items() if name in TESTS})

__all__ = [
    "CLAUSES",
    "TESTS",
    "Kill",
    "MemorySubject",
    "Outcome",
    "Report",
    "Subject",
    "check",
    "load_gaps",
    "save_gaps",
    *TESTS,
]
