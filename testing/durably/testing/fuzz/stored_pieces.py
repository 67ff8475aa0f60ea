"""The pieces of streamed answers that a store holds, for checks that run where no event loop does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence

from durably.core.deltas import DeltaStore, StoredDelta

__all__ = ["stored_pieces"]


def stored_pieces(store: DeltaStore, run_ids: Iterable[str]) -> Mapping[str, Sequence[StoredDelta]]:
    """Return the pieces of some runs, and close the store."""

    async def read() -> dict[str, list[StoredDelta]]:
        try:
            return {run_id: await store.read(run_id, 0) for run_id in run_ids}
        finally:
            await store.close()

    return asyncio.run(read())
