from __future__ import annotations

from tests.cli.conftest import Durably


def test_help_names_the_subcommands(durably: Durably) -> None:
    bare = durably()
    assert "crash-test" in bare.stdout + bare.stderr
    assert "--mode" in durably("crash-test", "--help").stdout


def test_version(durably: Durably) -> None:
    assert durably("--version").stdout.startswith("durably ")
