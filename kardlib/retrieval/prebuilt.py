"""Lucene indexes that exist already: a folder of yours, or one of pyserini's by its name, e.g. "enwiki-paragraphs".

Names, addresses, sizes, checksums and the cache are pyserini's. The download is not: pyserini's prints why it failed
and returns None, starts an archive of 17.7 GB anew after every broken connection, deletes one that you put there, and
does not ask how full the disk is. huggingface_hub's `http_get` is no public function and refuses 50 GB and more.
"""

import hashlib
import os
import shutil
import tarfile
import tempfile
import urllib.request
from pathlib import Path

from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import locked
from kardlib.retrieval.lucene import KnowledgeError, Lucene, Prebuilt
from kardlib.settings import KnowledgeSettings

UNPACKED = 1.5  # size of an index by the size of its archive; an estimate
CHUNK = 2**20  # bytes that are read at once
TIMEOUT = 60  # seconds to wait for the next bytes


def find_index(index: str) -> Path:
    """The folder of the index that `knowledge.index` names; a prebuilt one is fetched. Raises KnowledgeError."""
    folder = Path(index).expanduser()
    if _is_index(folder):
        return folder
    if folder.is_dir():
        raise KnowledgeError(f"{folder} holds no Lucene index (no file segments_*): correct knowledge.index")
    if len(folder.parts) > 1:
        raise KnowledgeError(f"there is no folder {folder}: correct knowledge.index")
    with Lucene(KnowledgeSettings()) as lucene:
        entry = lucene.prebuilt(index)
    return fetch_index(entry)


def identify_index(index: str) -> str:
    """What stands for an index in an artifact's name: a prebuilt one's name, else the hash of the newest commit's file.

    A commit holds ids drawn at random for every segment, so no two builds share it. Raises KnowledgeError.
    """
    folder = Path(index).expanduser()
    if folder.is_dir() or len(folder.parts) > 1:
        return hash_file(max(find_index(index).glob("segments_*"), key=lambda file: (len(file.name), file.name)))[:16]
    return index


def cache_folder() -> Path:
    """pyserini's folder of indexes: `$PYSERINI_CACHE/indexes`, else `~/.cache/pyserini/indexes`."""
    return Path(os.environ.get("PYSERINI_CACHE") or "~/.cache/pyserini").expanduser() / "indexes"


def fetch_index(entry: Prebuilt) -> Path:
    """Download and unpack a prebuilt index, unless it is in the cache. Raises KnowledgeError.

    A broken download goes on where it stopped, and an archive that the user put into the cache is not downloaded.
    """
    root = cache_folder()
    folder = root / f"{entry.filename.removesuffix('.tar.gz')}.{entry.md5}"
    if _is_index(folder):
        return folder
    with locked(root, entry.name):
        if _is_index(folder):  # another process may have fetched it while this one waited
            return folder
        archive, partial = root / entry.filename, root / f"{entry.filename}.partial"
        there = sum(file.stat().st_size for file in (archive, partial) if file.exists())
        needed = max(0, int(entry.bytes * (1 + UNPACKED)) - there)  # archive and index, while both are there
        free = shutil.disk_usage(root).free
        print(
            f"index {entry.name}: {entry.documents:,} passages, an archive of {entry.bytes / 1e9:.1f} GB, "
            f"unpacked about {entry.bytes * UNPACKED / 1e9:.1f} GB; {free / 1e9:.1f} GB free in {root}",
            flush=True,
        )
        if free < needed:
            raise KnowledgeError(
                f"the index {entry.name} needs about {needed / 1e9:.1f} GB, {free / 1e9:.1f} GB are free in {root}: "
                "make room, set PYSERINI_CACHE to a folder on another disk or knowledge.index to a copy that you have"
            )
        if not archive.exists():
            download(entry, partial)
            partial.rename(archive)
        check_archive(entry, archive)
        unpack(archive, folder)
        archive.unlink()
    return folder


def download(entry: Prebuilt, file: Path) -> None:
    """Append to `file` what it lacks of the archive, from the first URL that works. Raises KnowledgeError."""
    problems = []
    for url in entry.urls:
        try:
            append_rest(url, file, entry.bytes)
            return
        except OSError as error:  # also HTTPError, URLError, timeouts and a full disk
            problems.append(f"{url}: {error}")
    raise KnowledgeError(
        f"the index {entry.name} could not be fetched ({'; '.join(problems)}): try again, it goes on where it stopped, "
        "or set knowledge.index to a copy of the index"
    )


def append_rest(url: str, file: Path, size: int) -> None:
    """Append the bytes that `file` lacks of `size`; from the start where the server knows no ranges. Raises OSError."""
    done = file.stat().st_size if file.exists() else 0
    if done >= size:
        return
    request = urllib.request.Request(url, headers={"User-Agent": "kardlib", "Range": f"bytes={done}-"})
    with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
        done = done if response.status == 206 else 0
        with open(file, "ab" if done else "wb") as out:
            while chunk := response.read(CHUNK):
                out.write(chunk)
                if (done + len(chunk)) * 20 // size > done * 20 // size:
                    print(f"  {(done + len(chunk)) / 1e9:.1f} of {size / 1e9:.1f} GB", flush=True)
                done += len(chunk)
    if done < size:
        raise OSError(f"the connection ended after {done} of {size} bytes")


def check_archive(entry: Prebuilt, archive: Path) -> None:
    """Delete the archive and raise KnowledgeError if its size or MD5 is not the one that pyserini states."""
    with archive.open("rb") as file:
        found = archive.stat().st_size, hashlib.file_digest(file, "md5").hexdigest()
    if found != (entry.bytes, entry.md5):
        archive.unlink()
        raise KnowledgeError(
            f"the archive of the index {entry.name} is damaged ({found[0]} bytes, {entry.bytes} were expected, or "
            "another MD5) and was deleted: try again"
        )


def unpack(archive: Path, folder: Path) -> None:
    """Unpack the one index in an archive as `folder`, whole or not at all. Raises KnowledgeError."""
    with tempfile.TemporaryDirectory(prefix=".unpacking-", dir=folder.parent) as unpacked:
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter="data")
        except (tarfile.TarError, OSError) as error:
            raise KnowledgeError(f"{archive.name} could not be unpacked ({error}): make room or try again") from None
        found = [path.parent for path in Path(unpacked).rglob("segments_*")]
        if not found:
            archive.unlink()
            raise KnowledgeError(f"{archive.name} holds no Lucene index and was deleted: report this to pyserini")
        shutil.rmtree(folder, ignore_errors=True)
        found[0].rename(folder)


def _is_index(folder: Path) -> bool:
    return any(folder.glob("segments_*"))
