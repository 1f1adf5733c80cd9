"""The website of `make docs` as a server shows it, on a telephone and on a screen."""

import importlib.util
import os
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from tests.folders import copy_repository

BROKEN = "[...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src)"
UNTOLD = (
    "[...document.images].filter(image => /^(No description.*)?$/.test(image.alt)).map(image => image.src.slice(0, 80))"
)
PHOTOGRAPHED = {"index.html": "front", "notebooks/00_tour/index.html": "tour", "docs/gallery/index.html": "gallery"}
WIDTHS = (390, 1440)


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_):
        pass


@pytest.fixture(scope="module")
def site(browser, tmp_path_factory):
    """Pages by their addresses."""
    if not importlib.util.find_spec("mkdocs"):
        pytest.skip("there is no mkdocs here: make docs installs it")
    root = tmp_path_factory.mktemp("repository")
    copied = ("README.md", "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "answers", "docs", "notebooks", "figures")
    copy_repository(root, "Makefile", *copied)
    command = ["make", f"VENV={sys.prefix}", "-o", f"{sys.prefix}/.docs", "docs"]
    subprocess.run(command, cwd=root, env=os.environ, check=True, timeout=800)
    folder = root / "build" / "site"
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        paths = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.html"))
        yield {path: f"http://127.0.0.1:{server.server_port}/{path}" for path in paths}
        server.shutdown()


@pytest.mark.slow
def test_no_page_is_wider_than_its_window_and_all_that_it_shows_is_there(site, browser, pictures):
    browser.complaints.clear()
    assert len(site) > 30
    found = {}
    for path, address in site.items():
        browser.open(address, WIDTHS[0])
        for width in WIDTHS:
            browser.resize(width)
            found[path, width] = (
                browser.ask("document.documentElement.scrollWidth"),
                browser.ask(BROKEN) + browser.ask(UNTOLD),
            )
            if path in PHOTOGRAPHED:
                browser.photograph(pictures / f"site_{PHOTOGRAPHED[path]}_{width}.png")
    assert {page: said for page, said in found.items() if said != (page[1], [])} == {}
    ours = urlsplit(address).netloc  # other hosts, from which formulas' and diagrams' scripts come, may be out of reach
    complaints = [complaint for complaint in browser.complaints if ours in complaint]
    assert [complaint for complaint in complaints if "Invalid script: https://" not in complaint] == []
