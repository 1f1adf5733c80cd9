"""Files that are whole or not there, known by their hashes, and one sentence where the disk is full."""

import contextlib
import errno
import functools
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kardlib.errors import StoreError

UNFINISHED = ".unfinished-"  # how the name of a file begins while it is written


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """A temporary path, moved to `path` if the block ends well: a reader sees the old file or the new, never a half.

    It lies in the same folder, which is made if it is missing, and has a suffix of its own, so that who lists a
    folder's data does not find it. Raises StoreError if the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(8)}.part")
    with clear_if_full(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all. Raises StoreError if the disk is full."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, "utf-8")


def write_json(path: Path, value: Any) -> None:
    """Write a value as indented JSON, whole or not at all. Raises StoreError if the disk is full."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


@contextlib.contextmanager
def clear_if_full(folder: Path) -> Iterator[None]:
    """Turn whatever a library says about a full disk into one sentence. Raises StoreError."""
    try:
        yield
    except Exception as error:
        if is_full(error):
            raise full_error(folder) from error
        raise


def is_full(error: Exception) -> bool:
    """Whether it speaks of a full disk: libraries in other languages raise errors with the system's words in them.

    torch has words of its own: the file that it writes is shorter than what it wrote.
    """
    full, said = (errno.ENOSPC, errno.EDQUOT), str(error)
    torchs = "inline_container" in said and "unexpected pos" in said
    return getattr(error, "errno", None) in full or torchs or any(os.strerror(number) in said for number in full)


def full_error(folder: Path) -> StoreError:
    """What is said of a full disk."""
    return StoreError(
        f"the disk that holds {folder} is full: free some space and run the same command again; "
        "what is finished is kept and the rest goes on where it stopped"
    )


def hash_file(path: Path) -> str:
    """The sha256 of its bytes, in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def hash_once(path: Path) -> str:
    """The same, read again in this process only once the file has changed."""
    stat = path.stat()
    return _hash_once(path, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _hash_once(path: Path, size: int, changed: int) -> str:
    return hash_file(path)


def remove(path: Path) -> None:
    """Remove a folder, or whatever stands in its place: of a link the link alone."""
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)
