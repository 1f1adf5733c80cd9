"""Artifacts on disk, named by the hash of what made them: written whole or not at all, resumable, checked.

    index = Store().make("index", {"passages": fingerprint, "k1": 0.9}, build)

An artifact is a folder `{kind}-{hash}` with the files that `build` wrote and `artifact.json`: what it was made from,
by which code, on what device, when, in how many seconds, and the size and sha256 of every file.
"""

import contextlib
import errno
import functools
import hashlib
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

import kardlib
from kardlib.device import describe_device
from kardlib.errors import KardError

REPOSITORY = Path(__file__).resolve().parents[1]
MANIFEST = "artifact.json"
UNFINISHED = ".unfinished-"  # how the name of a file begins while it is written
PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "pyserini", "faiss-cpu", "numpy")


class StoreError(KardError, RuntimeError):
    """The store cannot be written or was asked for something that it cannot name."""


class Store:
    """The artifacts under one folder: `root`, else `$KARD_STORE`, else `artifacts/` in the repository.

    `$KARD_FORCE` (a date as `now` writes it, set by `kard reproduce --force`) makes every artifact begun before it old:
    it is built again when next asked for, and replaced once the new one is finished.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        self.root = Path(root or os.environ.get("KARD_STORE") or REPOSITORY / "artifacts")
        self._checked: dict[Path, tuple[int, int]] = {}  # file -> size and time of change when its hash was right

    def make(self, kind: str, spec: Mapping[str, Any], build: Callable[[Path], None]) -> Path:
        """The folder of the artifact that `kind` and `spec` (plain JSON values) name, built first if it is missing.

        `build(folder)` writes into a folder that outlives a kill, so that it finds there what it left: it must go on
        from that and end with the same files. `folder/"checkpoints"` is deleted before the artifact is published.
        Of two processes that ask for the same artifact one builds it and the other waits. Raises StoreError.
        """
        name = artifact_name(kind, spec)
        folder, partial = self.root / name, self.root / f"{name}.partial"
        if not self._find_damage(folder):
            return folder
        with locked(self.root, name), clear_if_full(self.root):
            damage = self._find_damage(folder)  # again: another process may have built it while this one waited
            if not damage:
                return folder
            if folder.exists():
                print(f"artifact {name} is built again: {damage}", flush=True)
            if is_old(partial):
                shutil.rmtree(partial)
            resumed = partial.exists()
            partial.mkdir(exist_ok=True)
            manifest = {"kind": kind, "spec": spec, "began": now(), "resumed": resumed}
            if not resumed:
                write_json(partial / MANIFEST, manifest)
            start = time.monotonic()
            build(partial)
            shutil.rmtree(partial / "checkpoints", ignore_errors=True)
            for leftover in partial.rglob(f"{UNFINISHED}*"):  # of a killed atomic_write
                leftover.unlink()
            manifest |= {"seconds": round(time.monotonic() - start, 3), "provenance": provenance()}
            write_json(partial / MANIFEST, manifest | {"files": describe_files(partial)})
            shutil.rmtree(folder, ignore_errors=True)
            os.replace(partial, folder)
        return folder

    def has(self, kind: str, spec: Mapping[str, Any]) -> bool:
        """Whether `make` would return at once. Raises StoreError."""
        return not self._find_damage(self.root / artifact_name(kind, spec))

    def specs(self, kind: str) -> list[dict[str, Any]]:
        """What the finished artifacts of a kind were made from; their files are not looked at."""
        specs = []
        for path in sorted(self.root.glob(f"{kind}-*/{MANIFEST}")):
            with contextlib.suppress(OSError, ValueError):
                manifest = json.loads(path.read_text("utf-8"))
                if manifest.get("kind") == kind and "files" in manifest and not is_old(path.parent):
                    specs.append(manifest["spec"])
        return specs

    def _find_damage(self, folder: Path) -> str:
        """Why the artifact cannot be used; empty if it can. A file is hashed once, and again when touched."""
        try:
            files = json.loads((folder / MANIFEST).read_text("utf-8"))["files"]
            for name, known in files.items():
                path = folder / name
                stat = path.stat()
                seen = (stat.st_size, stat.st_mtime_ns)
                if self._checked.get(path) != seen:
                    if stat.st_size != known["bytes"] or hash_file(path) != known["sha256"]:
                        return f"its file {name} has changed"
                    self._checked[path] = seen
        except FileNotFoundError as error:
            return f"its file {Path(error.filename).relative_to(folder).as_posix()} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"its {MANIFEST} cannot be read"
        return "a new one was asked for" if is_old(folder) else ""


def artifact_name(kind: str, spec: Mapping[str, Any]) -> str:
    """`{kind}-{hash}`: the hash of the canonical JSON of kind, spec and the version of kardlib. Raises StoreError."""
    try:
        text = canonical_json({"kind": kind, "spec": spec, "kardlib": kardlib.__version__})
    except (TypeError, ValueError) as error:
        raise StoreError(f"the spec of a {kind!r} artifact must hold plain JSON values only: {error}") from None
    return f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def is_old(folder: Path) -> bool:
    """Whether an artifact, finished or not, was begun before the date in `$KARD_FORCE`."""
    since = os.environ.get("KARD_FORCE", "")
    try:
        return bool(since) and folder.exists() and json.loads((folder / MANIFEST).read_text("utf-8"))["began"] < since
    except (OSError, ValueError, KeyError):
        return True


@contextlib.contextmanager
def locked(root: Path, name: str) -> Iterator[None]:
    """Hold the artifact's lock; the system releases it when the process ends, however it ends. Raises StoreError."""
    try:
        (root / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".locks" / f"{name}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"waiting for another process that builds {name}", flush=True)
            lock.acquire()
    except OSError as error:
        if is_full(error):
            raise full_error(root) from error
        raise StoreError(
            f"cannot write to {root} ({error.strerror}): set KARD_STORE to a folder that you own"
        ) from error
    try:
        yield
    finally:
        lock.release()


def hash_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Path within the folder -> size in bytes and sha256, of every file but the manifest."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": hash_file(p)} for p in files}


@contextlib.contextmanager
def atomic_write(path: Path | str) -> Iterator[Path]:
    """A temporary path, moved to `path` if the block ends well: a reader sees the old file or the new, never a half.

    It lies in the same folder and has the same suffix.

        with atomic_write(folder / "metrics.json") as temporary:
            temporary.write_text(text)

    Makes the folder if it is missing. Raises StoreError if the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f"{UNFINISHED}{secrets.token_hex(4)}-{path.name}")
    with clear_if_full(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", "utf-8")


@contextlib.contextmanager
def clear_if_full(folder: Path) -> Iterator[None]:
    """Turn whatever a library says about a full disk into one sentence. Raises StoreError."""
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if is_full(error):
            raise full_error(folder) from error
        raise


def is_full(error: Exception) -> bool:
    """Libraries written in other languages raise their own errors with the system's words in them."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return getattr(error, "errno", None) in full or any(os.strerror(number) in str(error) for number in full)


def full_error(folder: Path) -> StoreError:
    return StoreError(
        f"the disk that holds {folder} is full: free some space and run the same command again; "
        "what is finished is kept and the rest goes on where it stopped"
    )


def now() -> str:
    """The date in UTC; such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def provenance(settings: Mapping[str, Any] | None = None, seed: int | None = None) -> dict[str, Any]:
    """Where a result comes from: date, device, versions, the commit and whether `kardlib/` differs from it.

    `commit` and `dirty` are absent outside a git repository, `settings` and `seed` where they are not given. It holds
    no path and no name of a user or machine.
    """
    given = {"settings": settings, "seed": seed}
    return {
        "date": now(),
        "device": describe_device(),
        "versions": dict(read_versions()),
        **read_commit(),
        **{name: value for name, value in given.items() if value is not None},
    }


@functools.cache
def read_versions() -> dict[str, str]:
    """Versions of Python, of this package and of those that decide results, without importing them."""
    versions = {"python": platform.python_version(), "kardlib": kardlib.__version__}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


@functools.cache
def read_commit() -> dict[str, Any]:
    """Commit and dirtiness when first asked, which is when the running code was read.

    Only `kardlib/` counts as dirty: a run itself writes figures and notebooks.
    """
    if not (REPOSITORY / ".git").exists():
        return {}
    try:
        commit = _git("rev-parse", "--verify", "HEAD")
        return {"commit": commit, "dirty": bool(_git("status", "--porcelain", "--", "kardlib"))}
    except (OSError, subprocess.CalledProcessError):  # no git here, or no commit yet
        return {}


def _git(*arguments: str) -> str:
    run = subprocess.run(["git", *arguments], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return run.stdout.strip()
