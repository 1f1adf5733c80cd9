"""README and docs, read by a CommonMark parser as viewers read them: commands stand in blocks, links lead somewhere."""

import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

from kardlib.__main__ import build_parser
from kardlib.kard import methods as kard
from kardlib.kard.rankings import RETRIEVERS
from kardlib.models.catalogue import LOADERS
from kardlib.reaugkd import methods as reaugkd
from kardlib.registry import REGISTRY
from tests.folders import ROOT

NAMES = ("README.md", "CONTRIBUTING.md", "answers/README.md", *(f"docs/{p.name}" for p in ROOT.glob("docs/*.md")))
PAGES = sorted(ROOT / name for name in NAMES)
COMMAND = re.compile(r"(make|kard|jupyter|pip|python|ray|conda|export|cd|git|[A-Z_]+=\S+|\S*/bin/\S+) [-.\w]")
named = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())


def tokens(page: Path) -> Iterator[Token]:
    for token in MarkdownIt("commonmark").enable("table").parse(page.read_text("utf-8")):
        yield token
        yield from token.children or ()


def blocks(page: Path, language: str) -> list[str]:
    return [token.content for token in tokens(page) if token.type == "fence" and token.info.strip() == language]


def commands(page: Path) -> list[list[str]]:
    """The commands of a page's blocks, each as its words without comments and without what is set before it."""
    lines = "\n".join(blocks(page, "sh")).replace("\\\n", " ").splitlines()
    split = [shlex.split(part, comments=True) for line in lines for part in line.split("&&")]
    without = [[word for i, word in enumerate(words) if i or not re.match(r"[A-Z_]+=", word)] for words in split]
    return [words for words in without if words]


def heading_names(page: Path) -> set[str]:
    """What a link can name after #: every heading in small letters, blanks as hyphens, without other marks."""
    found = list(tokens(page))
    titles = [found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open"]
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@named
def test_every_command_is_in_a_fenced_block(page):
    found = list(tokens(page))
    assert not [token.content for token in found if token.type == "code_block"], "fence it: indented text becomes prose"
    assert not [token.content for token in found if token.type == "fence" and not token.info.strip()]
    prose = [token.content for token in found if token.type == "text"]
    assert not [text for text in prose if COMMAND.match(text)]


def test_a_command_outside_of_a_block_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("- a list\n    make reproduce\n")
    assert [t.content for t in tokens(page) if t.type == "text" and COMMAND.match(t.content)] == ["make reproduce"]
    page.write_text("Text.\n\n    make reproduce\n")
    assert [token.content for token in tokens(page) if token.type == "code_block"] == ["make reproduce\n"]


@named
def test_every_command_can_be_run(page):
    """Options of kard are those that its parser knows, targets those of the Makefile."""
    targets = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    for words in commands(page):
        if Path(words[0]).name == "kard":
            build_parser().parse_args(words[1:])
        elif words[0] == "make":
            assert words[1] in targets


def test_the_readme_begins_with_the_commands_that_set_everything_up():
    assert commands(ROOT / "README.md")[:2] == [["make", "reproduce"], ["make", "lab"]]
    assert (ROOT / "README.md").read_text("utf-8").count("\n") <= 150


@named
def test_every_link_leads_somewhere(page):
    for token in tokens(page):
        if target := token.attrGet("href") or token.attrGet("src"):
            link = urlsplit(str(target))
            if not link.scheme:
                path = (page.parent / unquote(link.path)).resolve() if link.path else page
                assert path.exists() and path.is_relative_to(ROOT), f"{page.name}: {target}"
                assert not link.fragment or link.fragment in heading_names(path), f"{page.name}: {target}"


def test_every_page_can_be_reached_from_the_readme():
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        links = [urlsplit(str(token.attrGet("href"))).path for token in tokens(page) if token.type == "link_open"]
        todo += {(page.parent / link).resolve() for link in links if link.endswith(".md")} - seen
    assert set(PAGES) <= seen


@named
def test_every_picture_says_what_it_shows(page):
    for token in tokens(page):
        assert token.type != "image" or len(token.content.split()) > 1, token.attrGet("src")


def test_the_readme_knows_every_notebook():
    linked = {str(token.attrGet("href")) for token in tokens(ROOT / "README.md") if token.type == "link_open"}
    assert {f"notebooks/{path.name}" for path in (ROOT / "notebooks").glob("*.ipynb")} <= linked


@pytest.fixture
def added():
    """What a user adds is taken away again."""
    tables = [kard.METHODS, kard.READS, reaugkd.METHODS, REGISTRY, RETRIEVERS, LOADERS]
    before = [table.copy() for table in tables]
    yield
    for table, entries in zip(tables, before, strict=True):
        table.clear()
        table.update(entries)


def test_what_the_page_on_extending_says_can_be_run(added, tmp_path):
    """All but its last block, which trains; the same calls answer questions in tests/kard/test_pipeline.py."""
    *parts, last = blocks(ROOT / "docs" / "extend.md", "python")
    (tmp_path / "page.py").write_text("\n".join(parts))
    names = runpy.run_path(str(tmp_path / "page.py"))
    texts = {"p1": "a cold hand", "p2": "a warm and cold foot of a goat"}
    assert names["by_shared_words"]({"q": "cold foot"}, texts, 1) == {"q": [("p2", 2.0)]}
    run = [("p2", 9.0), ("p1", 8.0)]
    assert [p for p, _ in names["shortest_first"]({"q": ""}, {"q": run}, texts)["q"]] == ["p1", "p2"]
    assert {"rd_reading", "kard_vote", "kard_words", "kard_shortest"} <= kard.METHODS.keys()
    assert "rkd_mixed" in reaugkd.METHODS and "mine" in LOADERS
    compile(last, "extend.md", "exec")
