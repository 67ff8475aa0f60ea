"""The deploy check: every live run of a database, or exported ones, taken through the code of now."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durably.backends import SQLiteBackend
from durably.core import Backend, DefinitionError, Function, NonDeterminismError, SerializationError
from durably.core.history import History
from durably.core.ids import step_id_of
from durably.core.run_view import LIVE
from durably.testing.replay import replay
from durably.testing.source_lines import error_line, step_line

__all__ = ["DeployReport", "RunFit", "check_deploy", "fit_run"]

Runs = Backend | str | Path | Iterable[History]
"""Where the runs are: a backend, a SQLite file, an exported history, a folder of these (``*.jsonl``), or histories."""


@dataclass(frozen=True, kw_only=True)
class RunFit:
    """Whether the current code fits one run.

    Attributes:
        run_id: The run.
        function: The id of its function.
        fits: Whether its records fit the code.
        step: The key of the step that does not fit; empty for the function's own end.
        line: The line of the code that asks for something else, or the current line; empty if unknown.
        problem: What is wrong, as text.
    """

    run_id: str
    function: str
    fits: bool
    step: str = ""
    line: str = ""
    problem: str = ""

    def __str__(self) -> str:
        if self.fits:
            return f"{self.run_id} ({self.function}) fits"
        step = f" at step {self.step!r}" if self.step else ""
        line = f", {self.line}" if self.line else ""
        return f"{self.run_id} ({self.function}) does not fit{step}{line}: {self.problem}"


@dataclass(frozen=True)
class DeployReport:
    """The result of a deploy check.

    Attributes:
        runs: Each run that was looked at.
    """

    runs: tuple[RunFit, ...]

    @property
    def ok(self) -> bool:
        """Whether every run can go on with this code."""
        return not self.misfits

    @property
    def misfits(self) -> list[RunFit]:
        """The runs that cannot."""
        return [each for each in self.runs if not each.fits]

    def __str__(self) -> str:
        bad = self.misfits
        lines = [f"✗ {each}" for each in bad]
        return "\n".join([*lines, f"{len(self.runs) - len(bad)} of {len(self.runs)} runs fit the code"])


async def check_deploy(
    functions: Sequence[Function[Any, Any]], runs: Runs, *, progress: Callable[[], object] = lambda: None
) -> DeployReport:
    """Replay live runs with new code before it is deployed. No body runs and nothing is written.

    Args:
        functions: The functions and agents of the new code.
        runs: Where the runs are: a backend or a database (all live runs), or exported histories (each one).
        progress: Called after each run.

    Raises:
        FileNotFoundError: If there is no such file or folder, or a folder has no histories.
    """
    found: list[RunFit] = []
    async for history in _histories(runs):
        found.append(await fit_run(history, functions))
        progress()
    return DeployReport(tuple(found))


async def fit_run(history: History, functions: Sequence[Function[Any, Any]]) -> RunFit:
    """What the code of now makes of one recorded run."""
    about = {"run_id": history.run_id, "function": history.function}
    try:
        await replay(history, functions)
    except NonDeterminismError as error:
        function = next((each for each in functions if each.id == history.function), None)
        step_id = step_id_of(error.step)
        line = error_line(error) or step_line(function, step_id)
        return RunFit(**about, fits=False, step=error.step, line=line, problem=str(error))
    except (DefinitionError, SerializationError) as error:
        return RunFit(**about, fits=False, problem=str(error))
    return RunFit(**about, fits=True)


async def _histories(runs: Runs) -> AsyncIterator[History]:
    found = _saved(Path(runs)) if isinstance(runs, str | Path) else runs
    if isinstance(found, Backend):
        async for history in _live(found):
            yield history
    elif isinstance(found, Path):
        async with SQLiteBackend(found) as client:
            async for history in _live(client):
                yield history
    else:
        for history in found:
            yield history


async def _live(backend: Backend) -> AsyncIterator[History]:
    for run in await backend.runs(status=LIVE, limit=1_000_000):
        yield await run.history()


def _saved(path: Path) -> Path | list[History]:
    """The histories of a file or folder; the path itself, if it is a database."""
    if not path.exists():
        raise FileNotFoundError(f"there is no {path}: name a SQLite file, or histories that were exported")
    if path.is_dir():
        files = sorted(path.glob("*.jsonl"))
        if not files:
            raise FileNotFoundError(f"{path} has no histories: 'durably export RUN -o FILE.jsonl' writes one")
        return [History.load(file) for file in files]
    return [History.load(path)] if path.suffix == ".jsonl" else path
