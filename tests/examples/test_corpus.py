from __future__ import annotations

import os
from pathlib import Path

import pytest

import durably.core
from examples.audit.corpus import Corpus, Limits, Root, own_code


def test_reads_text_and_counts_what_it_left_out(source: Path) -> None:
    corpus = Corpus([Root(path=source)])
    assert list(corpus.texts) == ["deep/broken.py", "deep/empty.txt", "deep/er/notes.md", "module.py"]
    assert corpus.bytes == sum((source / name).stat().st_size for name in corpus.texts)
    assert corpus.left_out == {
        "files that are links or devices": 2,
        "files that are not UTF-8 text": 1,
        "hidden, linked or dependency folders": 1,
    }
    assert "files that are not UTF-8 text (1)" in corpus.missing


def test_a_copy_is_the_same_byte_for_byte(source: Path, tmp_path: Path) -> None:
    corpus = Corpus([Root(path=source)])
    corpus.copy_to(tmp_path / "copy")
    again = Corpus([Root(path=tmp_path / "copy")])
    assert again.texts == corpus.texts
    assert again.missing == ""
    assert all((source / name).read_bytes() == (tmp_path / "copy" / name).read_bytes() for name in corpus.texts)


@pytest.mark.parametrize(
    ("limits", "read", "reason"),
    [
        (Limits(files=3), 3, "files beyond 3 files or 4,000,000 bytes"),
        (Limits(total_bytes=25), 2, "files beyond 1,000 files or 25 bytes"),
        (Limits(file_bytes=15), 2, "files larger than 15 bytes"),
        (Limits(entries=1), 1, "whatever comes after the first 1 entries"),
    ],
)
def test_large_directories_are_bounded_and_it_says_so(tmp_path: Path, limits: Limits, read: int, reason: str) -> None:
    for number in range(4):
        (tmp_path / f"{number}.txt").write_text("x" * (10 if number < 2 else 20))
    corpus = Corpus([Root(path=tmp_path)], limits)
    assert len(corpus.texts) == read
    assert reason in corpus.left_out


def test_odd_names_and_environments(tmp_path: Path) -> None:
    (tmp_path / "new\nline.txt").write_text("x")
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/latin\xe9.txt")).write_text("x")
    for name in ("node_modules", "__pycache__", "env"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "inside.txt").write_text("x")
    (tmp_path / "env" / "pyvenv.cfg").write_text("")
    corpus = Corpus([Root(path=tmp_path)])
    assert not corpus.texts
    assert corpus.left_out == {"files with unprintable names": 2, "hidden, linked or dependency folders": 2}


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_unreadable_files_are_counted(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "file.txt").chmod(0)
    assert Corpus([Root(path=tmp_path)]).left_out == {"unreadable files or folders": 1}


def test_a_directory_that_is_gone_is_counted(tmp_path: Path) -> None:
    assert Corpus([Root(path=tmp_path / "gone")]).left_out == {"unreadable files or folders": 1}


def test_own_code_is_the_installed_library() -> None:
    corpus = Corpus(own_code())
    core = Path(durably.core.__file__ or "")
    assert corpus.texts["durably/core/__init__.py"] == core.read_text()
    assert all(name.startswith("durably/") for name in corpus.texts)
