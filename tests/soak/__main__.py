"""``python -m tests.soak``: harms workers for a while, and exits with 1 if anything does not hold afterwards."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.soak.fleet import HARMS
from tests.soak.laws import Facts, broken_laws
from tests.soak.report import report
from tests.soak.run import soak


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    options.add_argument("--seconds", type=float, default=600, help="how long runs are started")
    options.add_argument("--workers", type=int, default=4)
    options.add_argument("--rate", type=float, default=10, help="runs started in a second")
    options.add_argument("--pause", type=float, default=8, help="seconds between two harms of one worker")
    options.add_argument("--lease", type=float, default=3, help="seconds of a worker's lease")
    options.add_argument("--patience", type=float, default=120, help="seconds that runs are given to end at last")
    options.add_argument("--harms", nargs="+", choices=HARMS, default=HARMS)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--directory", type=Path, help="where to keep the files; left out, they are thrown away")
    given = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory: Path = given.directory or Path(temporary)
        directory.mkdir(parents=True, exist_ok=True)
        choices = {
            name: getattr(given, name) for name in ("seconds", "workers", "rate", "harms", "pause", "lease", "patience")
        }
        fleet = asyncio.run(soak(directory, **choices, seed=given.seed))
        facts = Facts.read(directory)
    print(*report(facts, fleet), sep="\n")
    broken = [*fleet.odd_exits, *broken_laws(facts)]
    print(*(broken or ["all laws hold"]), sep="\n")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
