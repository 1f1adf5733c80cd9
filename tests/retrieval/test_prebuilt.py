"""Prebuilt indexes: a real Lucene index in a real archive from a real server, which cuts connections."""

import hashlib
import io
import shutil
import tarfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from kardlib.data.files import Passage
from kardlib.retrieval import prebuilt
from kardlib.retrieval.lucene import KnowledgeError, Lucene, Prebuilt
from kardlib.retrieval.prebuilt import fetch_index, find_index, identify_index
from kardlib.settings import KnowledgeSettings

PASSAGES = [Passage(f"p{i}", f"yak number {i}") for i in range(50)]


class Server(ThreadingHTTPServer):
    """Serves one archive at /index.tar.gz, by ranges; the first `cuts` answers end in the middle."""

    archive, cuts = b"", 0

    def __init__(self) -> None:
        self.asked: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        given = self.headers.get("Range")
        self.server.asked.append(f"{self.path} {given}")
        if self.path != "/index.tar.gz":
            return self.send_error(404)
        body = self.server.archive[int(given.removeprefix("bytes=").removesuffix("-")) if given else 0 :]
        self.send_response(206 if given else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.server.cuts:
            self.server.cuts -= 1
            body = body[: len(body) // 2]
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def lucene() -> Iterator[Lucene]:
    with Lucene(KnowledgeSettings()) as lucene:
        yield lucene


@pytest.fixture(scope="module")
def index(lucene, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("built") / "lucene-index.yaks"
    lucene.build(folder, PASSAGES)
    return folder


@pytest.fixture
def entry(server, index, tmp_path, monkeypatch) -> Prebuilt:
    monkeypatch.setenv("PYSERINI_CACHE", str(tmp_path / "cache"))
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.add(index, index.name)
    server.archive = packed.getvalue()
    url, md5 = f"http://127.0.0.1:{server.server_port}", hashlib.md5(server.archive).hexdigest()
    urls = [f"{url}/gone", f"{url}/index.tar.gz"]
    return Prebuilt("yaks", "lucene-index.yaks.tar.gz", urls, md5, len(server.archive), len(PASSAGES))


def test_sizes_are_shown_first_and_what_is_there_is_not_fetched_again(entry, server, lucene, capsys):
    folder = fetch_index(entry)
    assert server.asked == [
        "/gone bytes=0-",
        "/index.tar.gz bytes=0-",
    ]  # the second one answers
    size = f"{entry.bytes / 1e9:.1f}"
    assert capsys.readouterr().out.startswith(f"index yaks: 50 passages, an archive of {size} GB, unpacked about ")
    assert len(lucene.search(folder, {"q": "yak"}, 100)["q"]) == 50
    assert list(lucene.texts(folder, ["p7", "p3"])) == [PASSAGES[7], PASSAGES[3]]
    assert fetch_index(entry) == folder and len(server.asked) == 2
    assert [path.name for path in folder.parent.iterdir() if path.name != ".locks"] == [folder.name]  # no leftovers


def test_a_broken_download_is_said_and_goes_on_where_it_stopped(entry, server):
    server.cuts = 1
    with pytest.raises(
        KnowledgeError, match=r"the index yaks could not be fetched \(.*\): try again, it goes on where"
    ):
        fetch_index(entry)
    fetch_index(entry)
    assert server.asked[-1] == f"/index.tar.gz bytes={entry.bytes // 2}-"


def test_no_address_answers(entry):
    with pytest.raises(KnowledgeError, match=r"/gone: HTTP Error 404: Not Found\): try again") as error:
        fetch_index(entry._replace(urls=entry.urls[:1]))
    assert "\n" not in str(error.value)
    with pytest.raises(KnowledgeError, match="Connection refused"):
        fetch_index(entry._replace(urls=["http://127.0.0.1:9/index.tar.gz"]))


def test_a_full_disk_is_found_out_before_anything_is_fetched(entry, server):
    with pytest.raises(KnowledgeError, match=r"needs about .* GB, .* GB are free in .*: make room, set PYSERINI_CACHE"):
        fetch_index(entry._replace(bytes=10**18))
    assert not server.asked


def test_a_damaged_archive_is_not_unpacked(entry, server):
    server.archive = server.archive[:-1] + b"x"
    with pytest.raises(KnowledgeError, match=r"the archive of the index yaks is damaged .* and was deleted: try again"):
        fetch_index(entry)
    assert not [*prebuilt.cache_folder().glob("lucene*")]


def test_an_archive_that_was_put_there_is_taken(entry, server):
    prebuilt.cache_folder().mkdir(parents=True)
    (prebuilt.cache_folder() / entry.filename).write_bytes(server.archive)
    assert any(fetch_index(entry).glob("segments_*")) and not server.asked


@pytest.mark.parametrize("name", ["../outside", "readme"])
def test_an_archive_without_an_index_or_with_a_path_out_of_it(entry, server, name):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo(name))
    server.archive = packed.getvalue()
    md5 = hashlib.md5(server.archive).hexdigest()
    with pytest.raises(KnowledgeError, match=r"lucene-index.yaks.tar.gz (could not be unpacked|holds no Lucene index)"):
        fetch_index(entry._replace(md5=md5, bytes=len(server.archive)))
    assert not [*prebuilt.cache_folder().glob("*/segments_*")] and not [*prebuilt.cache_folder().rglob("outside")]


def test_pyserinis_names(lucene):
    wiki, bioasq = lucene.prebuilt("enwiki-paragraphs"), lucene.prebuilt("beir-v1.0.0-bioasq.flat")
    assert (wiki.bytes, wiki.documents) == (17_725_958_785, 39_880_064)
    assert (bioasq.bytes, bioasq.documents) == (24_821_943_492, 14_914_603)
    assert all(url.startswith("https://") for url in wiki.urls + bioasq.urls)
    with pytest.raises(KnowledgeError, match=r"'enwiki-paragraph' is neither .* mean 'enwiki-paragraphs'\?"):
        find_index("enwiki-paragraph")


def test_a_folder_is_taken_as_it_is(index, tmp_path):
    assert find_index(str(index)) == index
    with pytest.raises(KnowledgeError, match=r"holds no Lucene index \(no file segments_\*\): correct knowledge.index"):
        find_index(str(tmp_path))
    with pytest.raises(KnowledgeError, match=r"there is no folder .*nowhere: correct knowledge.index"):
        find_index(str(tmp_path / "nowhere"))


def test_an_index_is_known_by_its_content(index, lucene, tmp_path):
    shutil.copytree(index, tmp_path / "copy")
    lucene.build(tmp_path / "other", PASSAGES[:9])
    assert (
        identify_index(str(tmp_path / "copy")) == identify_index(str(index)) != identify_index(str(tmp_path / "other"))
    )
    assert identify_index("enwiki-paragraphs") == "enwiki-paragraphs"
