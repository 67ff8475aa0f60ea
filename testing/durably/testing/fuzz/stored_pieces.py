"""The pieces of streamed answers that a store holds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from durably.core.deltas import DeltaStore, StoredDelta

__all__ = ["stored_pieces"]


async def stored_pieces(store: DeltaStore, run_ids: Iterable[str]) -> Mapping[str, Sequence[StoredDelta]]:
    """Return the pieces of some runs, and close the store."""
    try:
        return {run_id: await store.read(run_id, 0) for run_id in run_ids}
    finally:
        await store.close()
