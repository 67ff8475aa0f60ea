"""What MkDocs calls while it builds the site: the reference pages, files outside the docs, and no network.

Owns: pages that are made from code. Does not own: what is said of a name (its docstring), and which names are public
(``__all__`` of the modules in ``MODULES``).
"""

from __future__ import annotations

import importlib
import posixpath
import re
from pathlib import Path
from typing import Any

from docs.site.examples import Example, examples
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

__all__ = [
    "MODULES",
    "on_config",
    "on_files",
    "on_page_content",
    "on_page_markdown",
    "on_post_page",
    "on_post_template",
]

ROOT = Path(__file__).parent.parent.parent

MODULES = {
    "durably.core": "What programs import: agents, functions, steps, runs.",
    "durably.core.errors": "All errors. Those that programs catch are in `durably.core` too.",
    "durably.core.flow": "Flow control: when a run begins, and how many bodies run.",
    "durably.core.history": "The records of a run.",
    "durably.core.messages": "What a conversation is made of.",
    "durably.core.model": "The port to models.",
    "durably.core.observer": "The events that an engine tells its observers.",
    "durably.backends": "Memory and SQLite.",
    "durably.backends.temporal": "Temporal.",
    "durably.backends.inngest": "Inngest.",
    "durably.providers": "Model providers.",
    "durably.mcp": "Tools of MCP servers.",
    "durably.telemetry": "OpenTelemetry.",
    "durably.telemetry.id_generator": "Trace ids that are derived from runs.",
    "durably.testing": "Crash tests, models for tests, replays.",
    "durably.testing.foreign": "Crash tests of agents of other libraries.",
}
"""What users import from, with a sentence on each; a page of the reference for each."""

LINK = re.compile(r"(?<!!)\[([^\]]*)\]\(([^)\s#]+)(#[^)\s]*)?\)")
ROLE = re.compile(r":(?:class|data|func|meth|mod|attr|exc):<code>~?([\w.]+)</code>")
OUTSIDE_SCRIPT = "https://unpkg.com/iframe-worker/shim"
SEARCH_SCRIPT = "assets/iframe-worker.js"
"""A script with which Material's search works from files, and the site's own copy of it."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that the navigation does not name under *More*, so that none is lost."""
    named = set(re.findall(r"[\w./-]+\.md", str(config.nav)))
    pages = {str(page.relative_to(config.docs_dir)) for page in Path(config.docs_dir).rglob("*.md")}
    if config.nav is not None and pages - named:
        config.nav.append({"More": sorted(pages - named)})
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the reference, the script of the search, and a page for each file outside the docs that a page links to."""
    shown = examples()
    for module in MODULES:
        files.append(File.generated(config, f"reference/{module}.md", content=reference(module, shown)))
    index = "\n".join(f"- [`{module}`]({module}.md): {about}" for module, about in MODULES.items())
    text = f"# API reference\n\nEvery public name, with its docstring and an example that the tests run.\n\n{index}\n"
    files.append(File.generated(config, "reference/index.md", content=text))
    files.append(
        File.generated(config, "assets/iframe-worker.js", abs_src_path=str(ROOT / "docs/site/iframe-worker.js"))
    )
    for target in sorted({"CHANGELOG.md", "CONTRIBUTING.md", *outside_files(files)}):
        page = File.generated(config, outside_page(target), content=outside_content(target))
        page.inclusion = InclusionLevel.INCLUDED if target.endswith(".md") else InclusionLevel.NOT_IN_NAV
        files.append(page)
    return files


def reference(module: str, shown: dict[str, Example]) -> str:
    """The page of a module: each public name with its docstring and an example."""
    loaded = importlib.import_module(module)
    parts = [f"# {module}", MODULES[module]]
    for name in loaded.__all__:
        parts.append(f"::: {module}.{name}")
        if name in shown:
            example = shown[name]
            parts.append(f'??? example "An example, from *{example.title}*"')
            parts.append("\n".join(f"    {line}".rstrip() for line in example.block.splitlines()))
            parts.append(f"    The whole page: [{example.title}](../{example.page}).")
    return "\n\n".join(parts) + "\n"


def outside_files(files: Files) -> set[str]:
    """The files and folders outside the docs that pages link to, from the root of the project."""
    found = set()
    for file in files.documentation_pages():
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(ROOT):
            for _, target, _ in LINK.findall(Path(file.abs_src_path).read_text(encoding="utf-8")):
                path = _outside(target, file.src_uri)
                if path:
                    found.add(path)
    return found


def _outside(target: str, page: str) -> str:
    """The path from the project's root that a link means, if it leads out of the docs; otherwise nothing."""
    path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
    return "" if "://" in target or path.startswith("docs/") else path


def outside_page(target: str) -> str:
    """The path of the page that shows a file."""
    return target.lower() if target.endswith(".md") else f"source/{target}.md"


def outside_content(target: str) -> str:
    """What is shown of a file, or of a folder."""
    path = ROOT / target
    if path.is_dir():
        names = sorted(each.name for each in path.iterdir() if each.suffix == ".py")
        return "\n".join([f"# {target}", "", f"The folder `{target}` of the source:", "", *(f"- `{n}`" for n in names)])
    text = path.read_text(encoding="utf-8")
    if target.endswith(".md"):
        return text.replace("](docs/", "](")
    language = {".py": "python", ".toml": "toml"}.get(path.suffix, "text")
    return f"# {target}\n\n````{language}\n{text}````\n"


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn links out of the docs into links to the pages that show those files."""

    def turn(link: re.Match[str]) -> str:
        path = _outside(link[2], page.file.src_uri)
        if not path or not (ROOT / path).exists():
            return link[0]
        here = posixpath.dirname(page.file.src_uri)
        return f"[{link[1]}]({posixpath.relpath(outside_page(path), here or '.')}{link[3] or ''})"

    return LINK.sub(turn, markdown)


def on_page_content(html: str, **_: Any) -> str:
    """Show what a docstring refers to as code."""
    return ROLE.sub(lambda role: f"<code>{role[1].rpartition('.')[2]}</code>", html)


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for the page that is shown where there is none."""
    return output_content.replace(OUTSIDE_SCRIPT, f"/{SEARCH_SCRIPT}")


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Take the script of the search from this site."""
    return output.replace(
        OUTSIDE_SCRIPT, posixpath.relpath("assets/iframe-worker.js", posixpath.dirname(page.url) or ".")
    )
