"""One life of an agent's process: a command that is run, or a function that is called in a fork."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Timer
from typing import Any

from durably.core.errors import DefinitionError
from durably.core.steps import Point, Probe
from durably.testing.crash.faults import Crash
from durably.testing.crash.fork_server import ForkServer
from durably.testing.crash.import_path import ImportPath
from durably.testing.crash.worker_process import child_environment
from durably.testing.foreign.watch import ENVIRONMENT, PASSAGES, Watch, begin_watch, order_of

__all__ = ["Life", "Lives", "Program", "open_lives"]

Program = Sequence[str] | Callable[[Path], Any]
"""How an agent is started, or resumed: a command, in which ``{folder}`` stands for the folder of the run, or a function
at the top of a module that takes this folder and returns the answer as JSON data."""


@dataclass(slots=True)
class Life:
    """What was seen of one process.

    Attributes:
        trace: The points it passed.
        struck: Where the planned crash killed it, or ``None``.
        killed: Whether SIGKILL ended it, planned or not.
        answer: What it returned or printed, as text, if it ended well.
        trouble: How it failed; empty if it did not.
    """

    trace: list[Point] = field(default_factory=list)
    struck: Point | None = None
    killed: bool = False
    answer: str = ""
    trouble: str = ""


class Lives(ABC):
    """Runs processes of one agent, one after the other.

    Args:
        name: The agent's name.
        start: How it is started.
        resume: How it is resumed.
        deadline: Seconds that a process may take.
    """

    def __init__(self, name: str, start: Any, resume: Any, deadline: float) -> None:
        self.name = name
        self.programs = (start, resume)
        self.deadline = deadline

    def live(self, number: int, folder: Path, notes: Path, crashes: Sequence[Crash]) -> Life:
        """Run one process to its end.

        Args:
            number: Which process of the run it is, from 1: the first is started, the others resume.
            folder: The folder of the run, which outlives the process.
            notes: Where the process reports to.
            crashes: Where it dies.
        """
        passages = notes / PASSAGES
        passages.unlink(missing_ok=True)
        life = self._run(min(number, 2) - 1, folder, notes, crashes)
        for line in passages.read_text(encoding="utf-8").splitlines() if passages.exists() else ():
            said = json.loads(line)
            if "point" in said:
                life.trace.append(Point(*said["point"]))
            else:
                life.struck = Point(*said["killed"])
        return life

    @abstractmethod
    def _run(self, program: int, folder: Path, notes: Path, crashes: Sequence[Crash]) -> Life: ...

    def close(self) -> None:  # noqa: B027  (a command leaves nothing behind)
        """End what runs them."""


def open_lives(name: str, start: Program, resume: Program, deadline: float) -> Lives:
    """Two commands or two functions.

    Raises:
        DefinitionError: If it is one of each, or a function that another process cannot find.
    """
    if callable(start) and callable(resume):
        return _Calls(name, ImportPath.of(start), ImportPath.of(resume), deadline)
    if callable(start) or callable(resume):
        raise DefinitionError("give start= and resume= in the same form: two commands, or two functions")
    return _Commands(name, list(start), list(resume), deadline)


class _Commands(Lives):
    def _run(self, program: int, folder: Path, notes: Path, crashes: Sequence[Crash]) -> Life:
        command = [part.replace("{folder}", str(folder)) for part in self.programs[program]]
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=child_environment(**{ENVIRONMENT: order_of(self.name, notes, crashes)}),
            start_new_session=True,  # it dies with all that it has started, as when a machine dies
            text=True,
        )
        life = Life()
        try:
            said, complaint = process.communicate(timeout=self.deadline)
        except subprocess.TimeoutExpired:
            life.trouble = f"the process did not end within {self.deadline:g} seconds"
            return life
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
        life.killed = process.returncode == -signal.SIGKILL
        if process.returncode == 0:
            life.answer = said.strip()
        elif not life.killed:
            last = complaint.strip().splitlines()[-1:] or ["it said nothing"]
            life.trouble = f"the command ended with {process.returncode}: {last[0]}"
        return life


class _Calls(Lives):
    def __init__(self, name: str, start: ImportPath, resume: ImportPath, deadline: float) -> None:
        super().__init__(name, start, resume, deadline)
        # Its strings hash differently than those of this process, as after a real restart.
        self._server = ForkServer(live_once, imports=[start, resume], hash_seed=1)

    def close(self) -> None:
        self._server.close()

    def _run(self, program: int, folder: Path, notes: Path, crashes: Sequence[Crash]) -> Life:
        life = Life()
        order = (self.name, self.programs[program], str(folder), str(notes))
        with self._server.start(*order, crashes=crashes) as process:
            timer = Timer(self.deadline, os.kill, (process.pid, signal.SIGKILL))
            timer.start()
            process.wait()
            late = not timer.is_alive()
            timer.cancel()
        life.killed = process.was_killed and not late
        if late:
            life.trouble = f"the process did not end within {self.deadline:g} seconds"
        elif process.returncode == 0:
            life.answer = json.dumps(process.result, ensure_ascii=False)
        elif not life.killed:
            life.trouble = f"it raised {process.error_type}: {process.error}"
        return life


def live_once(probe: Probe, name: str, program: list[str], folder: str, notes: str) -> Any:
    """Call the function of one life, in its process."""
    watch = Watch(name, Path(notes), getattr(probe, "crashes", ()))
    begin_watch(watch)
    return _then(ImportPath(*program).load()(Path(folder)), watch)


def _then(answer: Any, watch: Watch) -> Any:
    if inspect.iscoroutine(answer):

        async def wait() -> Any:
            value = await answer
            watch.went_on()
            return value

        return wait()
    watch.went_on()
    return answer
