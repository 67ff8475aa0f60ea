"""The commands that pages show are there, with the options that they are given."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import typer.main

from durably.cli.main import app
from tests.test_docs import PAGES, ROOT, page_id

FENCED = re.compile(r"^```([^\n]*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:durably|make) [^`]+)`")
COMMAND = re.compile(r"""(?:^|[\s/"`$])durably\s+([a-z][\w-]*)([^\n`|#]*)""", re.MULTILINE)
OPTIONS = {
    name: {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    for name, command in typer.main.get_group(app).commands.items()
}
TARGETS = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
TARGETS |= set(
    re.findall(r"^(\w+):", (ROOT / "cli/durably/cli/new_project/Makefile.txt").read_text(), re.MULTILINE)
)  # those of `durably init`


def shown(page: Path) -> str:
    """What a page sets as a command: its blocks that are no Python, and commands between backticks."""
    text = page.read_text(encoding="utf-8")
    blocks = [block for language, block in FENCED.findall(text) if not language.startswith("python")]
    return "\n".join([*blocks, *INLINE.findall(FENCED.sub("", text))])


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_commands_of_a_page_are_there(page: Path) -> None:
    for name, rest in COMMAND.findall(shown(page)):
        assert name in OPTIONS, f"durably {name}{rest}"
        asked = set(re.findall(r"(?<!\S)--?[a-z][\w-]*", rest)) - {"--help"}
        assert asked <= OPTIONS[name], f"durably {name}{rest}"


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_the_targets_of_make_that_a_page_names_are_there(page: Path) -> None:
    assert set(re.findall(r"(?:^|\$ |`|&& )make ([a-z]+)", shown(page), re.MULTILINE)) <= TARGETS


def test_commands_are_found() -> None:
    assert len(COMMAND.findall(shown(ROOT / "docs" / "cli.md"))) > 20
