"""A real process that is stopped for longer than its lease, beside one that takes its run over."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

CHILD = Path(__file__).parent / "stopped_child.py"
LEASE = "2"


def test_a_process_that_wakes_after_its_lease_begins_no_body(tmp_path: Path) -> None:
    command = [sys.executable, str(CHILD), str(tmp_path / "runs.db"), str(tmp_path / "ledger")]
    with subprocess.Popen([*command, "stale", LEASE, "stop"], stdout=subprocess.PIPE, text=True) as stale:
        try:
            _, status = os.waitpid(stale.pid, os.WUNTRACED)
            assert os.WIFSTOPPED(status), "it stops itself before the body"
            owner = subprocess.run([*command, "owner", LEASE], capture_output=True, text=True, timeout=50, check=False)
            assert owner.stdout == "done\n", owner.stderr
            os.kill(stale.pid, signal.SIGCONT)
            said, _ = stale.communicate(timeout=50)
            assert said == "done\n", "it tells the result of the run, which the other worker has ended"
        finally:
            stale.kill()
    assert (tmp_path / "ledger").read_text() == "owner 2\n"
