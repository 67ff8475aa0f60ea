"""The demo while it runs: a live table in a terminal, plain lines everywhere else."""

from __future__ import annotations

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.text import Text

from durably.cli.cells import duration, epitaph
from durably.cli.demo import Demo, Screen
from durably.cli.life import Life
from durably.cli.story import introduce
from durably.cli.table import clean, table_of
from durably.cli.worker import Mark

__all__ = ["LiveScreen", "PlainScreen", "SilentScreen", "screen_for"]

LEAST_WIDTH, LEAST_HEIGHT = 64, 14


class SilentScreen:
    """Shows nothing."""

    def begin(self, demo: Demo) -> None:
        """See :class:`~durably.cli.demo.Screen`."""

    def show(self, demo: Demo, life: Life, mark: Mark | None) -> None:
        """See :class:`~durably.cli.demo.Screen`."""

    def end(self) -> None:
        """See :class:`~durably.cli.demo.Screen`."""


class PlainScreen:
    """One line for each thing that happens; replayed steps share one.

    Args:
        console: Where to print.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._replayed = 0
        self._shown: Life | None = None

    def begin(self, demo: Demo) -> None:
        """See :class:`~durably.cli.demo.Screen`."""
        introduce(self._console, demo)

    def show(self, demo: Demo, life: Life, mark: Mark | None) -> None:
        """See :class:`~durably.cli.demo.Screen`."""
        if self._shown is not life:
            self._shown = life
            gap = "\n" if life.number > 1 else ""
            self._console.print(Text(f"{gap} process {life.number} (pid {life.pid})", style="bold"))
        if mark is not None and mark.what in ("replayed", "started"):
            self._replayed += mark.what == "replayed"
            return
        if self._replayed:
            steps = "step" if self._replayed == 1 else "steps"
            self._print("replayed", f"{self._replayed} {steps} from the journal, no body ran", "dim")
            self._replayed = 0
        if mark is None:
            self._print("KILLED" if life.was_killed else "ended", epitaph(life), "bold red" if life.was_killed else "")
        elif mark.what == "executed":
            self._print("executed", f"{mark.step}, {duration(mark.seconds)}", "green")
        elif mark.what in ("retrying", "given up", "failed"):
            self._print(mark.what, mark.step or mark.text, "yellow")

    def end(self) -> None:
        """See :class:`~durably.cli.demo.Screen`."""
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
        """See :class:`~durably.cli.demo.Screen`."""
        introduce(self._console, demo)
        self._demo = demo
        self._live.start()

    def show(self, demo: Demo, life: Life, mark: Mark | None) -> None:
        """See :class:`~durably.cli.demo.Screen`."""

    def end(self) -> None:
        """See :class:`~durably.cli.demo.Screen`."""
        self._live.stop()

    def _render(self) -> ConsoleRenderable:
        demo = self._demo
        if demo is None or not demo.lives:
            return Text()
        life = demo.lives[-1]
        ended = f"{epitaph(life)}, {life.seconds:.1f} s"
        foot = Text(
            f"\n process {life.number} (pid {life.pid}): {ended}", style="dim", no_wrap=True, overflow="ellipsis"
        )
        if life.was_killed:
            foot.stylize("not dim bold red")
        return Group(table_of(demo, self._console, rows=self._console.height - 5, spinner=self._spinner), foot)


def screen_for(console: Console) -> Screen:
    """The live table where it fits, else plain lines."""
    large = console.width >= LEAST_WIDTH and console.height >= LEAST_HEIGHT
    live = console.is_terminal and not console.is_dumb_terminal and large
    return LiveScreen(console) if live else PlainScreen(console)
