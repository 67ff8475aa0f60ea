"""What a worker remembers of runs, so that it need not ask the server or decode a record twice.

All of it can be found out again: a worker that knows nothing of a run is slower, not wrong.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar

from durably.backends.inngest.records import decode_patches, decode_record
from durably.backends.inngest.sdk import Request
from durably.core.history import StepRecord

__all__ = ["CachedRun", "RunCache"]

K = TypeVar("K")
V = TypeVar("V")


class BoundedDict(dict[K, V]):
    """A dict that forgets its oldest entries.

    Args:
        limit: How many it holds.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit

    def __setitem__(self, key: K, value: V) -> None:
        super().__setitem__(key, value)
        if len(self) > self._limit:
            del self[next(iter(self))]


@dataclass(slots=True)
class CachedRun:
    """A run whose requests come to this worker.

    Attributes:
        settled: The hashes of the steps that had ended at the newest request.
        decoded: The hashes of the steps whose outputs are in ``records``, or held none.
        records: The run's records, as far as they were decoded.
        begun: The steps whose begin was told to observers and is not recorded; the run's code as an empty key.
    """

    settled: list[str] = field(default_factory=list)
    decoded: list[str] = field(default_factory=list)
    records: list[StepRecord] = field(default_factory=list)
    begun: set[str] = field(default_factory=set)

    def read(self, run_id: str, request: Request) -> int:
        """Decode what is new in a request; how many of the records were known before.

        A run that is new here may have been another worker's: its last record counts as new, the others as known.
        """
        self.settled = request.settled
        if request.settled[: len(self.decoded)] != self.decoded:
            # An older state of the run, or steps that ended in another order than they were told in.
            self.decoded, self.records = [], []
        records = list(self.records)
        for output in request.outputs(len(self.decoded)):
            records += decode_patches(output, run_id, len(records))
            record = decode_record(output, run_id, len(records))
            if record is not None:
                records.append(record)
        known = len(self.records) or max(0, len(records) - 1)
        self.decoded, self.records = request.settled, records
        return known


class RunCache:
    """The runs that one worker has seen lately.

    Attributes:
        inngest_ids: Inngest's id of a run, by ours.
        starts: The server's id of the event that starts a run, and the id of its function, by our id of the run.
    """

    def __init__(self) -> None:
        self.inngest_ids: dict[str, str] = BoundedDict(10_000)
        self.starts: dict[str, tuple[str, str]] = BoundedDict(10_000)
        self._runs: dict[str, CachedRun] = BoundedDict(100)

    def run(self, run_id: str, inngest_id: str) -> CachedRun:
        """What is known of a run that a request is about."""
        self.inngest_ids[run_id] = inngest_id
        found = self._runs.get(inngest_id)
        if found is None:
            found = self._runs[inngest_id] = CachedRun()
        return found

    def settled(self, inngest_id: str) -> list[str]:
        """The hashes of the steps of a run that are known to have ended; none where its requests went elsewhere."""
        found = self._runs.get(inngest_id)
        return [] if found is None else found.settled
