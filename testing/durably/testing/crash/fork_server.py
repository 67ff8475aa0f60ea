"""A fork server: a process that has imported what is under test, and forks for each worker process.

That is much quicker than a fresh interpreter for each. This is the parent's side; the server's side stands in
``fork_server_main.py``.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple

from durably.testing.crash.faults import Crash
from durably.testing.crash.import_path import ImportPath
from durably.testing.crash.order import Order
from durably.testing.crash.worker_process import Child, WorkerProcess, child_environment

__all__ = ["ForkServer"]


class ForkServer:
    """Starts worker processes, one at a time.

    When it is closed, the process behind it is kept for the next one: what takes time is to import the library.

    Args:
        target: What each of them calls; see :meth:`WorkerProcess.start`.
        imports: Objects whose modules the server imports before it forks.
        hash_seed: Fixes how strings hash, and with it the order of a set of strings.

    Raises:
        DefinitionError: If one of these is not at the top of a module.
    """

    def __init__(self, target: Callable[..., Any], *, imports: Iterable[ImportPath] = (), hash_seed: int) -> None:
        self._target = ImportPath.of(target)
        self._place = _Place.of_this_process(hash_seed)
        idle = _idle.get(self._place, [])
        self._server: _Server | None = idle.pop() if idle else _Server(hash_seed)
        self._last: WorkerProcess | None = None
        self._server.write(json.dumps([self._target, *imports]))

    def start(self, *args: Any, crashes: Sequence[Crash] = (), number: int = 1) -> WorkerProcess:
        """Fork a worker process; the one before must have ended. Arguments as for :meth:`WorkerProcess.start`.

        Raises:
            RuntimeError: If the server has ended.
        """
        if self._server is None:
            raise RuntimeError("the fork server is closed")
        order = Order(number=number, target=self._target, args=args, crashes=tuple(crashes))
        self._server.write(order.to_json())
        pid = json.loads(self._server.read())["pid"]
        self._last = WorkerProcess(_Forked(pid, self._server.read), number)
        return self._last

    def close(self) -> None:
        """End a worker that still runs, and give the server back."""
        server, self._server = self._server, None
        if server is None:
            return
        if server.lives() and (self._last is None or self._last.returncode is not None):
            _idle.setdefault(self._place, []).append(server)
        else:
            server.end()


class _Place(NamedTuple):
    """What a server has taken from the process that started it, and would not notice if it changed."""

    pid: int
    hash_seed: int
    folder: str
    path: tuple[str, ...]
    environment: frozenset[tuple[str, str]]

    @classmethod
    def of_this_process(cls, hash_seed: int) -> _Place:
        environment = frozenset(each for each in os.environ.items() if each[0] != "PYTEST_CURRENT_TEST")
        return cls(os.getpid(), hash_seed, os.getcwd(), tuple(sys.path), environment)


class _Server:
    """The process, and the pipes to it."""

    def __init__(self, hash_seed: int) -> None:
        # Workers hold the reading end, so that they end when this process does; the server's own input is orders.
        leash, self._leash = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "durably.testing.crash.fork_server_main", str(leash)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=child_environment(PYTHONHASHSEED=str(hash_seed)),
                pass_fds=[leash],
                text=True,
            )
        finally:
            os.close(leash)

    def write(self, line: str) -> None:
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # the next reading tells why
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the fork server has ended; its error output tells why")
        return line

    def lives(self) -> bool:
        return self._process.poll() is None

    def end(self) -> None:
        os.close(self._leash)
        self._process.communicate()


_idle: dict[_Place, list[_Server]] = {}


@atexit.register
def _end_idle_servers() -> None:
    for place, servers in _idle.items():
        for server in servers if place.pid == os.getpid() else ():
            server.end()


class _Forked(Child):
    """A child of the server, which says when it is gone."""

    def __init__(self, pid: int, read: Callable[[], str]) -> None:
        self.pid = pid
        self._read = read
        self._returncode: int | None = None

    def lines(self) -> Iterator[str]:
        while self._returncode is None:
            line = self._read()
            if line.startswith('{"exit"'):
                self._returncode = json.loads(line)["exit"]
            else:
                yield line

    @property
    def returncode(self) -> int | None:
        return self._returncode

    def end(self) -> None:
        if self._returncode is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            for _ in self.lines():  # the server takes it off the process table, and says so
                pass
