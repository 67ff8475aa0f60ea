"""The plugin's options, and what they make of the arguments of a crash test."""

from __future__ import annotations

from typing import Any

import pytest

__all__ = ["add_options", "crash_count", "merge_options"]


def add_options(parser: pytest.Parser) -> None:
    """Declare the options."""
    group = parser.getgroup("durably", "crash tests of durable functions and agents")
    group.addoption("--crash", metavar="off|single|pairs|N", help="crashes in one run, instead of what the test says")
    group.addoption("--crash-points", metavar="GLOB", help="only points such as 'after_effect' or 'tool-*/*'")
    group.addoption("--crash-mode", choices=["inproc", "sigkill"], help="how crashes are made (default: inproc)")
    group.addoption("--crash-repro", metavar="LABEL", help="run one cell again: the label that a failure printed")
    group.addoption("--crash-report", metavar="DIR", help="write an HTML report for each crash test into a folder")
    group.addoption(
        "--durably-runs", metavar="PATH", help="what deploy_check looks at: a SQLite file, a folder of histories"
    )
    group.addoption("--durably-backend", metavar="NAME", help="the backend of crash tests (default: memory)")
    group.addoption(
        "--durably-network-guard",
        choices=["auto", "on", "off"],
        default="auto",
        help="which tests must not reach the network: crash tests and goldens (auto), all (on), none (off)",
    )
    group.addoption(
        "--history-record",
        choices=["none", "new", "rewrite"],
        default="none",
        help="record golden histories: none (a missing one fails), new (those that are missing), rewrite (all)",
    )


def crash_count(config: pytest.Config) -> int | None:
    """How many crashes the command line asks for; 0 for none, ``None`` if it says nothing.

    Raises:
        pytest.UsageError: If the option is not a number of crashes.
    """
    option = config.getoption("--crash")
    words = {"off": 0, "single": 1, "pairs": 2}
    if option is None or option in words:
        return None if option is None else words[option]
    if not option.isdigit() or option == "0":
        raise pytest.UsageError(f"--crash={option}: use off, single, pairs or a number of crashes")
    return int(option)


def merge_options(config: pytest.Config, given: dict[str, Any]) -> dict[str, Any]:
    """The arguments of the matrix: what the test says, and over it what the command line says."""
    merged = dict(given)
    crashes = crash_count(config)
    if crashes:
        merged["crashes"] = crashes
    for name, option in (
        ("points", "--crash-points"),
        ("mode", "--crash-mode"),
        ("backend", "--durably-backend"),
        ("repro", "--crash-repro"),
    ):
        value = config.getoption(option)
        if value is not None:
            merged[name] = value
    return merged
