"""Links lead somewhere, code blocks can be read, and commands in them have the options they are given."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from clip_common.cli.main import parser as clip_hub_parser
from clip_common.hub.run_command import parser as hub_run_parser
from tests.support.paths import ROOT

PAGES = sorted(
    page
    for pattern in ("*.md", "docs/**/*.md", "examples/*.md", "recipes/**/*.md", "modules/*/*.md")
    for page in ROOT.glob(pattern)
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FIGURE = re.compile(r"\*{0,2}([\d.,]+)(?: ?%)?\*{0,2}(?: ?[(（].*)?")  # a cell of a table
BLOCK = re.compile(r"^ *(?:- )?```(\w+)\n(.*?)^ *```", re.MULTILINE | re.DOTALL)


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT))


def slug(heading: str) -> str:
    """A heading's anchor, as GitHub and the site make it."""
    text = re.sub(r"[`*]", "", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)}


def blocks(page: Path, language: str) -> Iterator[str]:
    for kind, content in BLOCK.findall(page.read_text("utf-8")):
        if kind == language:
            lines = content.splitlines()
            indent = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
            yield "\n".join(line[indent:] for line in lines)


def commands(page: Path) -> Iterator[list[str]]:
    """The commands of a page's shell blocks, as words; from the first of a pipe only."""
    for block in blocks(page, "shell"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            end = next((i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&")), len(words))
            if words[:end]:
                yield words[:end]


def in_chinese(page: Path) -> Path:
    """The Chinese page beside an English one."""
    if page.name == "README.md":
        return page.with_name("README_zh.md")
    return page.with_name("README.md") if page.name == "README_en.md" else page.parent / "zh" / page.name


ENGLISH = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("modules/*/README_en.md")]
IN_BOTH = sorted(page for page in ENGLISH if in_chinese(page).exists())


def figures(page: Path) -> list[str]:
    """The figures in a page's tables; those with a unit in words are left out."""
    rows = [line for line in page.read_text("utf-8").splitlines() if line.lstrip().startswith("|")]
    cells = [cell.strip() for row in rows for cell in row.split("|")]
    return sorted(found[1] for cell in cells if (found := FIGURE.fullmatch(cell)))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(re.sub(r"```.*?```", "", page.read_text("utf-8"), flags=re.DOTALL)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        path = (page.parent / file).resolve() if file else page
        known = anchor.startswith("clip_common.") or not anchor or anchor in anchors(path)
        if not path.exists() or not known:
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_code_blocks_can_be_read(page: Path) -> None:
    for block in blocks(page, "python"):
        if not block.lstrip().startswith(("def ", "hub.Module(name=")):  # signatures, in the module cards
            compile(block, str(page), "exec")
    for block in blocks(page, "json"):
        for document in re.split(r"\n(?=\{)", block):
            json.loads(document)


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_commands_have_the_options_that_they_are_given(page: Path) -> None:
    refused = []
    for words in commands(page):
        name = Path(words[0]).name
        try:
            if name == "clip-hub" and words[1:] != ["--version"]:
                clip_hub_parser().parse_args(words[1:])
            elif [name, *words[1:2]] == ["hub", "run"]:
                hub_run_parser(words[2]).parse_args(words[3:])
        except SystemExit:
            refused.append(shlex.join(words))
    assert refused == []


def test_every_page_of_the_site_is_in_its_navigation() -> None:
    listed = set(re.findall(r"[\w/-]+\.md", (ROOT / "mkdocs.yml").read_text("utf-8")))
    assert {str(page.relative_to(ROOT / "docs")) for page in (ROOT / "docs").rglob("*.md")} == listed


def test_every_page_for_users_is_there_in_chinese() -> None:
    pages = {page.name for page in (ROOT / "docs").glob("*.md")}
    assert pages - {page.name for page in (ROOT / "docs/zh").glob("*.md")} == {"architecture.md"}


@pytest.mark.parametrize("page", IN_BOTH, ids=ids)
def test_tables_have_the_same_figures_in_chinese(page: Path) -> None:
    assert figures(in_chinese(page)) == figures(page)


@pytest.mark.parametrize("name", ["README.md", "README_zh.md"])
def test_the_readme_is_one_page(name: str) -> None:
    assert len((ROOT / name).read_text("utf-8").splitlines()) <= 150
