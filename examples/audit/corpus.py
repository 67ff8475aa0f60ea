"""The files that an audit reads, found within limits and in a fixed order. Whatever is left out is counted."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict

import durably

__all__ = ["Corpus", "Limits", "Root", "own_code"]

COMPILED = "__pycache__"
"""Left out without a word: it is made from what is read."""

UNREADABLE = "unreadable files or folders"
SKIPPED_FOLDERS = frozenset({COMPILED, "node_modules", "site-packages"})


class Root(BaseModel):
    """A folder to look through.

    Attributes:
        path: Where it is.
        prefix: What the names of its files begin with; empty or ending in ``/``.
    """

    model_config = ConfigDict(frozen=True)

    path: Path
    prefix: str = ""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """How much is looked at; the rest is counted as left out.

    Attributes:
        entries: Files and folders met on the way.
        files: Files read.
        file_bytes: The largest file that is read.
        total_bytes: All that is read.
    """

    entries: int = 20_000
    files: int = 1_000
    file_bytes: int = 500_000
    total_bytes: int = 4_000_000


class Corpus:
    """The text files below some roots, read once.

    Args:
        roots: Where to look.
        limits: How much.

    Attributes:
        texts: The text of each file by its name, in the order of the names.
        sizes: The bytes of each file by its name.
        left_out: How many were not read, by the reason.
    """

    def __init__(self, roots: Iterable[Root], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self.texts: dict[str, str] = {}
        self.sizes: dict[str, int] = {}
        self.left_out: Counter[str] = Counter()
        self._entries = 0
        self._full = False
        found = {name: path for root in roots for name, path in self._walk(root)}
        for name in sorted(found):
            self._read(name, found[name])

    @property
    def bytes(self) -> int:
        """All bytes that were read."""
        return sum(self.sizes.values())

    @property
    def missing(self) -> str:
        """What was left out, in words; empty if nothing was."""
        return ", ".join(f"{reason} ({count:,})" for reason, count in sorted(self.left_out.items()))

    def _walk(self, root: Root) -> Iterator[tuple[str, Path]]:
        for folder, folders, names in os.walk(root.path, onerror=self._on_error):
            kept = [each for each in folders if not _skipped(Path(folder, each))]
            for _ in {*folders} - {*kept, COMPILED}:
                self._leave_out("hidden, linked or dependency folders")
            folders[:] = sorted(kept)
            for name in sorted(names):
                self._entries += 1
                if self._entries > self.limits.entries:
                    self._leave_out(f"whatever comes after the first {self.limits.entries:,} entries")
                    return
                path = Path(folder, name)
                yield root.prefix + path.relative_to(root.path).as_posix(), path

    def _read(self, name: str, path: Path) -> None:
        if not name.isprintable():
            return self._leave_out("files with unprintable names")
        try:
            status = path.lstat()
            if not stat.S_ISREG(status.st_mode):
                return self._leave_out("files that are links or devices")
            if status.st_size > self.limits.file_bytes:
                return self._leave_out(f"files larger than {self.limits.file_bytes:,} bytes")
            over = len(self.texts) >= self.limits.files or self.bytes + status.st_size > self.limits.total_bytes
            self._full = self._full or over  # from here on nothing is read, or what is read would be the small files
            if self._full:
                return self._leave_out(f"files beyond {self.limits.files:,} files or {self.limits.total_bytes:,} bytes")
            with path.open("rb") as file:
                content = file.read(self.limits.file_bytes)
        except OSError:
            return self._leave_out(UNREADABLE)
        try:
            text = content.decode()
        except UnicodeDecodeError:
            return self._leave_out("files that are not UTF-8 text")
        if "\0" in text:
            return self._leave_out("files that are not UTF-8 text")
        self.texts[name] = text
        self.sizes[name] = len(content)
        return None

    def _on_error(self, _: OSError) -> None:
        self._leave_out(UNREADABLE)

    def _leave_out(self, reason: str) -> None:
        self.left_out[reason] += 1

    def copy_to(self, folder: Path) -> None:
        """Write what was read into a folder, byte for byte."""
        for name, text in self.texts.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.encode())


def _skipped(folder: Path) -> bool:
    hidden = folder.name.startswith(".") or folder.name in SKIPPED_FOLDERS
    return hidden or folder.is_symlink() or (folder / "pyvenv.cfg").is_file()


def own_code() -> list[Root]:
    """Where this library's own code is installed: one folder for each part of the namespace."""
    return [Root(path=Path(each).resolve(), prefix="durably/") for each in dict.fromkeys(durably.__path__)]
