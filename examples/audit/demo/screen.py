"""The demo while it runs: a live table in a terminal, plain lines everywhere else."""

from __future__ import annotations

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from examples.audit.demo.narration import introduce
from examples.audit.demo.run import Demo, Screen
from examples.audit.demo.table import clean, table_of
from examples.audit.demo.table_cells import describe_end, duration
from examples.audit.demo.worker_log import StepEvent, WorkerLog

__all__ = ["LiveScreen", "PlainScreen", "SilentScreen", "screen_for"]

LEAST_WIDTH, LEAST_HEIGHT = 64, 14


class SilentScreen:
    """Shows nothing."""

    def begin(self, demo: Demo) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""

    def show(self, demo: Demo, worker: WorkerLog, event: StepEvent | None) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""

    def end(self) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""


class PlainScreen:
    """One line for each thing that happens; replayed steps share one.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._replayed = 0
        self._shown: WorkerLog | None = None

    def begin(self, demo: Demo) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""
        introduce(self._console, demo)

    def show(self, demo: Demo, worker: WorkerLog, event: StepEvent | None) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""
        if self._shown is not worker:
            self._shown = worker
            gap = "\n" if worker.number > 1 else ""
            self._console.print(Text(f"{gap} process {worker.number} (pid {worker.process.pid})", style="bold"))
        if event is not None and event.what in ("replayed", "started"):
            self._replayed += event.what == "replayed"
            return
        if self._replayed:
            steps = "step" if self._replayed == 1 else "steps"
            self._print("replayed", f"{self._replayed} {steps} from the journal, no body ran", "dim")
            self._replayed = 0
        if event is None:
            word, style = ("KILLED", "bold red") if worker.process.was_killed else ("ended", "")
            self._print(word, describe_end(worker), style)
        elif event.what == "executed":
            self._print("executed", f"{event.step}, {duration(event.seconds)}", "green")
        elif event.what in ("retrying", "given up", "failed"):
            self._print(event.what, event.step or event.text, "yellow")

    def end(self) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""
        self._console.print()

    def _print(self, word: str, rest: str, style: str) -> None:
        line = Text("   ").append(f"{word:<10}", style=style).append(clean(rest))
        self._console.print(line, soft_wrap=True)


class LiveScreen:
    """A table that grows: a row for each step, a column for each process.

    Args:
        console: A terminal that is large enough.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._demo: Demo | None = None
        self._live = Live(console=console, transient=True, refresh_per_second=15, get_renderable=self._render)
        self._spinner = Spinner("line" if console.options.ascii_only else "dots", style="yellow")

    def begin(self, demo: Demo) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""
        introduce(self._console, demo)
        self._demo = demo
        self._live.start()

    def show(self, demo: Demo, worker: WorkerLog, event: StepEvent | None) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""

    def end(self) -> None:
        """See :class:`~examples.audit.demo.run.Screen`."""
        self._live.stop()

    def _render(self) -> ConsoleRenderable:
        demo = self._demo
        if demo is None or not demo.workers:
            return Text()
        worker = demo.workers[-1]
        process = worker.process
        said = f"\n process {process.number} (pid {process.pid}): {describe_end(worker)}, {process.seconds:.1f} s"
        foot = Text(said, style="dim", no_wrap=True, overflow="ellipsis")
        if process.was_killed:
            foot.stylize("not dim bold red")
        return Group(table_of(demo, self._console, rows=self._console.height - 5, spinner=self._spinner), foot)


def screen_for(console: Console) -> Screen:
    """The live table where it fits, else plain lines."""
    large = console.width >= LEAST_WIDTH and console.height >= LEAST_HEIGHT
    live = console.is_terminal and not console.is_dumb_terminal and large
    return LiveScreen(console) if live else PlainScreen(console)
