"""Golden histories: recorded runs kept beside the tests, which the code must go on to fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from durably.backends.memory import MemoryBackend
from durably.core import DurablyError, Function, InvokeError, NonDeterminismError
from durably.core.history import History
from durably.testing.replay import replay

__all__ = ["DIRECTORY", "Golden", "GoldenMissingError", "RecordMode", "unused_goldens"]

RecordMode = Literal["none", "new", "rewrite"]
"""``none``: a missing file is an error. ``new``: record what is missing. ``rewrite``: record everything anew."""

DIRECTORY = "histories"
"""The folder beside the test file."""


class GoldenMissingError(DurablyError, AssertionError):
    """There is no recorded run for a test, or it no longer fits."""


@dataclass(slots=True)
class Golden:
    """The recorded runs of one test.

    Args:
        directory: Where they are.
        name: The name of the test, which their files begin with.
        record: Whether to record.

    Attributes:
        used: The files that were asked for.
    """

    directory: Path
    name: str
    record: RecordMode = "none"
    used: set[Path] = field(default_factory=set)

    def path(self, label: str = "") -> Path:
        """The file of one recorded run."""
        return self.directory / (f"{self.name}.{label}.jsonl" if label else f"{self.name}.jsonl")

    async def check(
        self,
        target: Function[Any, Any],
        data: Any = None,
        *,
        functions: Sequence[Function[Any, Any]] = (),
        label: str = "",
    ) -> Any:
        """Replay the recorded run with today's code. Record it first if the mode says so.

        Args:
            target: The function or agent. It runs, on the memory backend, only to be recorded.
            data: Its input.
            functions: Further functions it calls.
            label: Distinguishes several recorded runs of one test.

        Returns:
            What the run returned.

        Raises:
            GoldenMissingError: If there is no file and none may be recorded.
            NonDeterminismError: If the code does not fit the file.
        """
        path = self.path(label)
        self.used.add(path)
        if self.record == "rewrite" or (self.record == "new" and not path.exists()):
            path.parent.mkdir(parents=True, exist_ok=True)
            (await _record(target, data, functions)).save(path)
        if not path.exists():
            raise GoldenMissingError(
                f"there is no recorded run {path}: record it with 'pytest --history-record=new' and commit the file"
            )
        try:
            return await replay(History.load(path), [target, *functions])
        except NonDeterminismError as error:
            raise GoldenMissingError(
                f"{path.name} does not fit the code any more, so runs that are live now could not go on after a "
                f"deploy: {error} If no such run is live, record anew with 'pytest --history-record=rewrite'."
            ) from error


async def _record(target: Function[Any, Any], data: Any, functions: Sequence[Function[Any, Any]]) -> History:
    async with MemoryBackend([target, *functions]) as backend:
        run = await backend.start(target, data, run_id="golden")
        with suppress(InvokeError):  # a run that fails can be a golden one as well
            await run.result()
        return await run.history()


def unused_goldens(directories: Iterable[Path], used: set[Path], covers: Callable[[str], bool]) -> list[Path]:
    """Recorded runs that no test asked for.

    Args:
        directories: The folders that tests of this session use.
        used: The files they asked for.
        covers: Whether all tests of the module that a file belongs to ran; takes the file's name.
    """
    files = [path for directory in sorted(set(directories)) for path in sorted(directory.glob("*.jsonl"))]
    return [path for path in files if path not in used and covers(path.name)]
