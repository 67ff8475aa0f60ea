"""A real dev server for the tests, where there is one: `INNGEST_DEV_SERVER` names its address or its binary."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

__all__ = ["NO_SERVER", "running_server"]

NO_SERVER = "no Inngest dev server: set INNGEST_DEV_SERVER to its address or binary, or put `inngest` on PATH"


@contextmanager
def running_server(directory: Path) -> Iterator[str | None]:
    """The address of a dev server for as long as the block lasts, or ``None`` where there is none.

    Args:
        directory: Where one that is started here may write.
    """
    named = os.environ.get("INNGEST_DEV_SERVER", "")
    binary = named or shutil.which("inngest") or shutil.which("inngest-cli")
    if named.startswith("http") or not binary:
        yield named or None
        return
    port, *others = _free_ports(4)
    command = [binary, "dev", "--no-discovery", "--no-poll", "--retry-interval", "1", "--tick", "20"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for flag, other in zip(("gateway-port", "gateway-grpc-port", "executor-grpc-port"), others, strict=True):
        command += [f"--connect-{flag}", str(other)]
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=directory, stdout=log, stderr=log)
        try:
            _wait_until_up(f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()  # asked to end, it first waits for its queues
            process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _wait_until_up(address: str, process: subprocess.Popen[bytes]) -> None:
    for _ in range(200):
        try:
            if httpx.get(f"{address}/health", timeout=1).status_code == 200:
                return
        except httpx.HTTPError:
            assert process.poll() is None, "the dev server ended"
        time.sleep(0.1)
    raise AssertionError("the dev server did not come up")
