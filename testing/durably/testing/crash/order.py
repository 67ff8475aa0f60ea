"""What a worker process is told to do, as it goes from the parent to the child."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from durably.testing.crash.faults import Crash
from durably.testing.crash.import_path import ImportPath

__all__ = ["Order"]


@dataclass(frozen=True, kw_only=True)
class Order:
    """A function to call.

    Attributes:
        number: Which process of the run it is, from 1.
        target: The function.
        args: Its arguments after the probe, as JSON data.
        crashes: Where the process kills itself, in order.
    """

    number: int
    target: ImportPath
    args: tuple[Any, ...] = ()
    crashes: tuple[Crash, ...] = ()

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Order:
        """Read what :meth:`to_json` wrote."""
        data = json.loads(line)
        return cls(
            number=data["number"],
            target=ImportPath(*data["target"]),
            args=tuple(data["args"]),
            crashes=tuple(Crash(**each) for each in data["crashes"]),
        )
