"""The site builds without a warning, loads nothing from elsewhere, and shows every public name with an example."""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from docs.site.examples import examples

from tests.test_surface import MODULES

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.timeout(240)  # whichever test is first builds the site
LOADED = re.compile(r"""(?:<script[^>]+src|<link[^>]+rel="(?:stylesheet|preconnect|icon)"[^>]+href)="(https?:[^"]+)""")

needs_mkdocs = pytest.mark.skipif(
    importlib.util.find_spec("material") is None, reason="the group `docs` is not installed: `make docs` installs it"
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", str(directory)]
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return directory


@needs_mkdocs
def test_every_public_name_is_in_the_reference(site: Path) -> None:
    for module in MODULES:
        page = (site / "reference" / f"{module}.html").read_text(encoding="utf-8")
        missing = [name for name in importlib.import_module(module).__all__ if f'id="{module}.{name}"' not in page]
        assert missing == [], module


@needs_mkdocs
def test_no_page_loads_anything_from_elsewhere(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 40
    assert {each for page in pages for each in LOADED.findall(page.read_text(encoding="utf-8"))} == set()
    assert (site / "search" / "search_index.js").exists(), "search works from the files"
    assert (site / "assets" / "iframe-worker.js").exists()


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_example(module: str) -> None:
    shown = examples()
    missing = [name for name in importlib.import_module(module).__all__ if name not in shown]
    assert missing == [], "use each in a block of a page, such as docs/by-example.md"
