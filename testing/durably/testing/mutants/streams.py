"""Mutants of C29: streams that lose something, or say it wrongly."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from durably.backends.memory import MemoryBackend
from durably.core.deltas import DeltaStore, StoredDelta
from durably.core.history import StepRecord
from durably.core.model import StreamedDelta
from durably.core.stream import StreamItem, StreamReader
from durably.testing.mutants.mutant import mutant

__all__: list[str] = []


class _Unmarked(StreamReader):
    def _is_abandoned(self, delta: StreamedDelta) -> bool:
        return False


@mutant("C29")
class AbandonedPiecesAreNotMarked(MemoryBackend):
    """The pieces of an attempt that failed look like those of the answer."""

    stream_reader = _Unmarked


class _Skipping(StreamReader):
    def read(self, records: Sequence[StepRecord], deltas: Sequence[StoredDelta]) -> list[StreamItem]:
        return [replace(item, offset=item.offset - item.offset % 2) for item in super().read(records, deltas)]


@mutant("C29")
class OffsetsAreShared(MemoryBackend):
    """Two items have one offset, so that one of them is skipped, or shown again, by a reader who goes on behind it."""

    stream_reader = _Skipping


class _ByArrival(StreamReader):
    def read(self, records: Sequence[StepRecord], deltas: Sequence[StoredDelta]) -> list[StreamItem]:
        before = self.records + self.deltas
        return [replace(item, offset=before + number) for number, item in enumerate(super().read(records, deltas))]


@mutant("C29")
class OffsetsCountWhatThisReaderSaw(MemoryBackend):
    """Offsets are counted by each reader for itself, so that they differ from reader to reader."""

    stream_reader = _ByArrival


class _Forgetful(StreamReader):
    def _before(self, record: StepRecord) -> Iterator[StreamItem]:
        return iter(())


@mutant("C29")
class PiecesComeBehindTheAnswer(MemoryBackend):
    """Who reads a stream afterwards gets the pieces behind all that was recorded."""

    stream_reader = _Forgetful


@mutant("C29")
class PiecesAreNotKept(MemoryBackend):
    """The pieces of answers are gone when a stream is read."""

    def __init__(self, *args: object, deltas: DeltaStore | None = None, **options: object) -> None:
        super().__init__(*args, **options)  # type: ignore[arg-type]
        self.deltas = None


class _Backwards(StreamReader):
    def read(self, records: Sequence[StepRecord], deltas: Sequence[StoredDelta]) -> list[StreamItem]:
        items = super().read(records, deltas)
        events = [item.event for item in items if item.event is not None]
        return [replace(item, event=event) for item, event in zip(items, reversed(events), strict=False)]


@mutant("C29")
class StreamsRunBackwards(MemoryBackend):
    """What happened last is read first."""

    stream_reader = _Backwards
