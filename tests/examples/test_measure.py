"""The demo's numbers, computed another way: by the shell's tools, and by hand."""

from __future__ import annotations

import subprocess
from pathlib import Path

import durably.core
from examples.audit.corpus import Corpus, Root
from examples.audit.measure import lines_of, measure, search
from tests.examples.conftest import SOURCE


def nothing() -> None:
    pass


def shell(*command: str | Path) -> str:
    done = subprocess.run([str(each) for each in command], capture_output=True, text=True, check=False)
    return done.stdout


def test_numbers_equal_those_of_the_shell() -> None:
    folder = Path(durably.core.__file__ or "").parent
    corpus = Corpus([Root(path=folder)])
    measured = measure(corpus.texts, nothing)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.suffix != ".pyc")
    assert measured.files == len(paths)
    assert measured.bytes == int(shell("wc", "-c", *paths).split()[-2])
    assert measured.lines == int(shell("awk", "END {print NR}", *paths))
    assert measured.blank_lines == int(shell("awk", "!NF {n++} END {print n + 0}", *paths))
    longest = max((len(line), path) for path in paths for line in path.read_text().splitlines())
    assert measured.longest_line is not None
    assert measured.longest_line.size == longest[0]
    counted = dict(line.rsplit(":", 1) for line in shell("grep", "-c", "", *paths).splitlines())
    largest = max(counted, key=lambda path: int(counted[path]))
    assert measured.largest_file is not None
    assert measured.largest_file.size == int(counted[largest])
    assert folder / measured.largest_file.path == Path(largest)
    defined = shell("grep", "-hE", r"^ *(async )?def \w+\(", *paths).splitlines()
    assert measured.python is not None
    assert measured.python.functions == len(defined)
    assert measured.python.public == sum(
        line.startswith(("def ", "async def ")) and " _" not in line for line in defined
    )


def test_search_equals_grep() -> None:
    folder = Path(durably.core.__file__ or "").parent
    corpus = Corpus([Root(path=folder)])
    wanted = ["# type: ignore", "def __", "raise "]
    matches = search(corpus.texts, wanted, nothing)
    found = shell("grep", "-rFI", "--include=*.py", *(f"-e{each}" for each in wanted), folder).splitlines()
    assert matches.lines == len(found)
    assert matches.files == len({line.split(":")[0] for line in found})
    assert [folder / place.path for place in matches.places] == sorted(folder / place.path for place in matches.places)


def test_python_counted_by_hand() -> None:
    python = measure({"a.py": SOURCE, "b.py": "def (:", "c.md": "def x(): ..."}, nothing).python
    assert python is not None
    assert (python.files, python.functions, python.public, python.undocumented) == (2, 5, 2, 1)
    assert python.unparsable == ["b.py"]
    assert python.longest_function is not None
    assert (python.longest_function.text, python.longest_function.line, python.longest_function.size) == ("bare", 11, 6)


def test_lines() -> None:
    assert lines_of("") == []
    assert lines_of("a\n\nb") == ["a", "", "b"]
    assert lines_of("a\n") == ["a"]


def test_nothing_to_measure() -> None:
    measured = measure({"empty.txt": ""}, nothing)
    assert (measured.files, measured.lines, measured.python, measured.longest_line) == (1, 0, None, None)
