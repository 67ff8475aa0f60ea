"""What people install: the wheel, built from the sdist, in an environment that has nothing else."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.test_docs import LINK
from tests.test_layout import PARTS

ROOT = Path(__file__).parent.parent
PROGRAM = """
import asyncio
import sys
from durably.core import Agent, tool
from durably.backends import MemoryBackend
from durably.testing import ScriptedModel, call

@tool
async def get_order(order_id: str) -> str:
    return f"order {order_id} was sent"

agent = Agent("a", model=ScriptedModel(call("get_order", order_id="7"), "sent"), instructions="", tools=[get_order])

async def main() -> None:
    async with MemoryBackend([agent]) as backend:
        print((await backend.invoke(agent, "where is 7?")).text)

asyncio.run(main())
"""


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run([*map(str, command)], cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_the_wheel_runs_an_agent_with_pydantic_alone(tmp_path: Path) -> None:
    run(sys.executable, "-m", "build", "--outdir", tmp_path / "dist", ROOT, cwd=tmp_path)  # sdist, then wheel from it
    run(sys.executable, "-m", "twine", "check", "--strict", *(tmp_path / "dist").iterdir(), cwd=tmp_path)
    (wheel,) = (tmp_path / "dist").glob("*.whl")
    (sdist,) = (tmp_path / "dist").glob("*.tar.gz")
    with tarfile.open(sdist) as source, zipfile.ZipFile(wheel) as built:
        assert any(name.endswith("/examples/audit/agent.py") for name in source.getnames())
        files = set(built.namelist())
        (metadata,) = (name for name in files if name.endswith(".dist-info/METADATA"))
        links = LINK.findall(built.read(metadata).decode())
    assert len(links) > 40
    assert [link for link in links if not link.startswith("https://")] == [], (
        "the package's page is not in the repository"
    )
    folders = {name.partition("/")[0] for name in files}
    assert files >= {
        str(path.relative_to(ROOT / part))
        for part in PARTS
        for path in (ROOT / part / "durably").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"durably/ui/templates/base.html", "durably/cli/new_project/agent.py.txt"} <= files
    assert folders == {"durably", wheel.name.partition("-py3")[0] + ".dist-info"}
    run(sys.executable, "-m", "venv", tmp_path / "clean", cwd=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", wheel, cwd=tmp_path)
    installed = run(python, "-m", "pip", "list", "--format=freeze", "--disable-pip-version-check", cwd=tmp_path)
    names = {line.split("==")[0].lower().replace("_", "-") for line in installed.splitlines()}
    pydantic = {"pydantic", "pydantic-core", "annotated-types", "typing-extensions", "typing-inspection"}
    assert names - {"pip", "setuptools"} == {"durably"} | pydantic
    (tmp_path / "program.py").write_text(PROGRAM)
    assert run(python, tmp_path / "program.py", cwd=tmp_path).strip() == "sent"
    typed = run(python, "-c", "import durably.core as c; print(c.__path__[0])", cwd=tmp_path).strip()
    assert (Path(typed) / "py.typed").exists()
