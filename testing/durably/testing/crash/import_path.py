"""Where another process finds an object: the module, its file, and the name in it."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from contextlib import suppress
from types import ModuleType
from typing import Any, NamedTuple

from durably.core import DefinitionError, Function

__all__ = ["ImportPath"]


class ImportPath(NamedTuple):
    """The way to an object at the top of a module.

    Attributes:
        module: The name of the module.
        file: Its file, for a module that cannot be imported by its name (a script, a test without a package).
        name: The object's name in it.
    """

    module: str
    file: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}:{self.name}"

    @classmethod
    def of(cls, thing: Any) -> ImportPath:
        """Find the way to an object.

        Raises:
            DefinitionError: If it is not at the top of a module that another process can import.
        """
        if _importing:
            raise DefinitionError(
                f"{_importing[-1]} starts processes while it is imported, and each of them would import it and start "
                'more: put the code that begins it below if __name__ == "__main__":'
            )
        for name in (getattr(thing, "__module__", ""), getattr(getattr(thing, "handler", None), "__module__", "")):
            module = sys.modules.get(name)
            found = None if module is None else _name_in(module, thing)
            if module is not None and found is not None:
                return cls(name, _file_of(module), found)
        for name, module in list(sys.modules.items()):
            found = _name_in(module, thing) if isinstance(thing, Function) else None
            if found is not None:
                return cls(name, _file_of(module), found)
        raise DefinitionError(
            f"{thing!r} is not at the top of a module, so another process cannot find it: mode='sigkill' needs the "
            "agent or its factory, and state=, as names of a module (no lambda, nothing inside a function)"
        )

    def load(self) -> Any:
        """The object, in a process that may not have imported its module yet."""
        # A file is imported under a name of its own: its real name may be taken by another module in this process.
        alias = f"__durably_child__{self.file}"
        module = sys.modules.get(alias) or self._import(alias)
        return getattr(module, self.name)

    def _import(self, alias: str) -> ModuleType:
        if self.module != "__main__":
            with suppress(ImportError):
                return importlib.import_module(self.module)
        spec = importlib.util.spec_from_file_location(alias, self.file)
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[alias] = importlib.util.module_from_spec(spec)
        _importing.append(self.file)
        try:
            spec.loader.exec_module(module)
        finally:
            _importing.pop()
        return module


_importing: list[str] = []
"""The scripts that this process is importing, to find an object in them."""


def _file_of(module: ModuleType) -> str:
    file = getattr(module, "__file__", None) or ""
    if module.__name__ == "__main__" and not os.path.isfile(file):
        raise DefinitionError(
            "another process cannot import a program that is no file (a notebook, python -c, standard input): save it "
            "as one, or crash it in this process, mode='inproc'"
        )
    return file


def _name_in(module: ModuleType, thing: Any) -> str | None:
    return next((name for name, value in list(vars(module).items()) if value is thing), None)
