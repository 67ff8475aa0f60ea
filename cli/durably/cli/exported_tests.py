"""What ``durably export RUN --as-test`` writes: a pytest file, and the run's records beside it."""

from __future__ import annotations

import re
from pathlib import Path

import typer

from durably.cli.address import open_client
from durably.cli.command import find_run, refuse, run_command, said
from durably.cli.target import load_target
from durably.core import DefinitionError, Function
from durably.testing.agents import agents_of
from durably.testing.crash.import_path import ImportPath
from durably.testing.exported_test import ExportedTest, export_test

__all__ = ["write_test"]


def write_test(run: str, backend: str, target: str | None, output: Path | None) -> None:
    """Write the files, and say how to run them.

    Args:
        run: The id of the run, or its beginning.
        backend: The name of the engine.
        target: ``MODULE:OBJECT`` of the function; left out, it is looked for in the program that names the engine.
        output: The test file; left out, one in this folder that is named by the run.
    """

    async def main() -> tuple[Path, ExportedTest]:
        async with open_client(backend) as engine:
            found = await find_run(engine, run)
            history = await found.history()
            function, place = _function(target, history.function)
            path = output or Path(f"test_{re.sub(r'[^a-zA-Z0-9]+', '_', found.id).strip('_').lower()}.py")
            below = [each for each in await engine.runs(root=found.id, limit=10_000) if each.id != found.id]
            children = [await each.history() for each in reversed(below)]
            names = list(agents_of(function))
            module, name = place
            return path, export_test(history, children, stem=path.stem, module=module, name=name, agents=names)

    path, test = run_command(main())
    golden = path.parent / test.golden
    for each in (path, golden):
        if each.exists():
            refuse(f"{each} is there already: remove it, or name another file with --output")
    try:
        golden.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(test.source, encoding="utf-8")
        test.history.save(golden)
    except OSError as error:
        refuse(f"--output {path}: {error.strerror}")
    typer.echo(f"wrote {path} and {golden}; run it: pytest {path}")


def _function(target: str | None, function_id: str) -> tuple[Function[object, object], tuple[str, str]]:
    """The function of the run, and the module and name that a test imports it by."""
    if target is None:
        refuse(f"--target says what to test: the function {function_id!r} of your program, such as app:support")
    try:
        function = load_target(target)
        place = ImportPath.of(function)
    except DefinitionError:
        refuse(f"{target} is not at the top of a module, so a test could not import it")
    except Exception as error:
        refuse(said(error))
    if not isinstance(function, Function) or function.id != function_id:
        refuse(f"{target} is {getattr(function, 'id', function)!r}, and the run is of {function_id!r}")
    return function, (place.module, place.name)
