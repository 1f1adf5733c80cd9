"""Artifacts on disk, named by the hash of what made them: written whole or not at all, resumable, checked.

    index = Store().make(Kind("index"), {"passages": fingerprint, "k1": 0.9}, build)

An artifact is a folder `{kind}-{hash}` with the files that `build` wrote and `artifact.json`: what it was made from,
by which code, on what device, when, in how many seconds, and the size and sha256 of every file.

Machines that share no folder share a URL, where fsspec copies files to and from. An artifact is seen there once it is
whole (its manifest comes last), and what is fetched must have the hashes that its manifest states.
"""

import contextlib
import hashlib
import json
import os
import pkgutil
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from kardlib import REPOSITORY
from kardlib.artifacts.disk import (
    UNFINISHED,
    clear_if_full,
    full_error,
    hash_file,
    hash_once,
    is_full,
    remove,
    write_json,
)
from kardlib.artifacts.provenance import now, provenance
from kardlib.errors import StoreError, TooLargeError, first_line

MANIFEST = "artifact.json"

Spec = Mapping[str, Any]  # what an artifact is made from: plain JSON values
Build = Callable[[Path], None]  # writes its files into a folder
Slot = contextlib.AbstractContextManager[Any]  # within which it runs


@dataclass(frozen=True)
class Kind:
    """A kind of artifact: what its folders are called, by which recipe it is made, and by whom.

    The recipe is a part of every name: raised when the meaning of the code that makes this kind changes, so that edited
    code never shows old results. `tests/recipes.json` holds a hash of that code beside it.
    """

    name: str
    recipe: int = 1
    builder: str = ""  # "module:function", called in a worker as function(*work, folder=...); empty: the caller builds
    lower: str = ""  # the settings to lower where it does not fit into the GPU's memory

    def build(self, work: Sequence[Any], folder: Path) -> None:
        """Call the builder, whose module is imported now: it may bring torch."""
        pkgutil.resolve_name(self.builder)(*work, folder=folder)


class Store:
    """The artifacts under one folder: the given one, else `$KARD_STORE`, else `artifacts/` in the repository.

    Instead of a folder a URL that fsspec knows may be given (`s3://bucket/kard`, `file:///mnt/share`): `root` is then
    this machine's working copy, `$KARD_CACHE`, else `artifacts/` in the repository. An artifact is fetched before it is
    built and uploaded once it is finished.

    `$KARD_FORCE` (a date as `now` writes it, set by `kard reproduce --force`) makes every artifact begun before it old:
    it is built again when next asked for, and replaced once the new one is finished.
    """

    def __init__(self, folder_or_url: Path | str | None = None) -> None:
        given = str(folder_or_url or os.environ.get("KARD_STORE") or "")
        self.url = given if "://" in given else ""
        folder = os.environ.get("KARD_CACHE") if self.url else given
        self.root = Path(folder or REPOSITORY / "artifacts")
        self._uploaded: set[str] = set()  # names of artifacts that are known to be at the URL

    def make(
        self, kind: Kind, spec: Spec, build: Build, slot: Slot | None = None, made: Mapping[str, Any] | None = None
    ) -> Path:
        """The folder of the artifact that `kind` and `spec` name, built first if it is missing.

        `build(folder)` writes into a folder that outlives a kill, so that it finds there what it left: it must go on
        from that and end with the same files. `folder/"checkpoints"` is deleted before the artifact is published.
        It runs within `slot`, whose waiting is not counted in the manifest's seconds. `made` replaces what the manifest
        says of seconds and provenance, where another machine made what `build` copies.
        Of two processes that ask for the same artifact one builds it and the other waits. Raises StoreError, and
        TooLargeError where the GPU's memory does not suffice.
        """
        name = artifact_name(kind, spec)
        folder = self.root / name
        if self._find_damage(folder):
            with locked(self.root, name), clear_if_full(self.root):
                damage = self._find_damage(folder)  # again: another process may have built it while this one waited
                if damage and not self._fetch(folder):
                    if folder.exists():
                        print(f"artifact {name} is built again: {damage}", flush=True)
                    self._build(folder, kind, spec, build, slot or contextlib.nullcontext(), made or {})
        elif (partial := folder.with_name(f"{folder.name}.partial")).exists():
            with locked(self.root, name, wait=False) as free:  # else a run with `$KARD_FORCE` is about to replace it
                if free:
                    remove(partial)  # of such a run that was killed
        self._upload(folder)
        if used := os.environ.get("KARD_USED"):  # a file that `kard reproduce` reads once the notebook has ended
            with open(used, "a", encoding="utf-8") as file:
                file.write(f"{name}\n")
        return folder

    def _build(self, folder: Path, kind: Kind, spec: Spec, build: Build, slot: Slot, made: Mapping[str, Any]) -> None:
        partial = folder.with_name(f"{folder.name}.partial")
        if is_old(read_manifest(partial)):
            shutil.rmtree(partial, ignore_errors=True)
        resumed = partial.exists()
        partial.mkdir(exist_ok=True)
        manifest = {"kind": kind.name, "recipe": kind.recipe, "spec": spec, "began": now(), "resumed": resumed}
        if not resumed:
            write_json(partial / MANIFEST, manifest)
        try:
            with slot:
                start = time.monotonic()
                build(partial)
                seconds = round(time.monotonic() - start, 3)
        except RuntimeError as error:
            if type(error).__name__ != "OutOfMemoryError":  # torch's, which is not imported for it
                raise
            raise TooLargeError(
                f"the GPU's memory does not suffice to make {partial.stem}: "
                f"{kind.lower and f'lower {kind.lower}, or '}take a smaller model or a larger GPU"
            ) from None
        shutil.rmtree(partial / "checkpoints", ignore_errors=True)
        for leftover in partial.rglob(f"{UNFINISHED}*"):  # of a killed atomic_write
            leftover.unlink()
        manifest |= {"seconds": seconds, "provenance": provenance(), **made}
        manifest["files"] = describe_files(partial)
        write_json(partial / MANIFEST, manifest)
        remove(folder)
        os.replace(partial, folder)
        self._uploaded.discard(folder.name)

    def take(self, kind: Kind, spec: Spec, files: Mapping[str, Path | bytes], made: Mapping[str, Any]) -> Path:
        """The artifact of these files by their names in it, copied or given as bytes: another machine made them.

        It replaces a build that was begun here, never a finished one. Raises StoreError.
        """

        def build(folder: Path) -> None:
            for begun in [path for path in folder.iterdir() if path.name != MANIFEST]:
                remove(begun)
            for name, file in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                if isinstance(file, bytes):
                    (folder / name).write_bytes(file)
                else:
                    shutil.copyfile(file, folder / name)

        return self.make(kind, spec, build, made=made)

    def has(self, kind: Kind, spec: Spec) -> bool:
        """Whether `make` would return at once. Raises StoreError."""
        return self.find(artifact_name(kind, spec)) is not None

    def find(self, name: str) -> Path | None:
        """The folder of a finished artifact, fetched if it is only at the URL, else None. Raises StoreError."""
        folder = self.root / name
        if not self._find_damage(folder):
            return folder
        if self._read_uploaded(name):  # asked first, so as not to wait for a process here that builds it
            with locked(self.root, name), clear_if_full(self.root):
                if not self._find_damage(folder) or self._fetch(folder):
                    return folder
        return None

    def _read_uploaded(self, name: str) -> dict[str, Any]:
        """The manifest at the URL; empty where there is none, a torn one, or one that `$KARD_FORCE` makes old."""
        if not self.url:
            return {}
        try:
            with open_url(self.url) as (remote, root):
                text = remote.cat_file(f"{root}/{name}/{MANIFEST}")
            manifest = dict(json.loads(text))
            files = list(manifest["files"])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return {}
        if any(Path(file).is_absolute() or ".." in Path(file).parts for file in files):
            raise StoreError(f"{self.url}/{name} has files outside its own folder: do not trust that store")
        return {} if is_old(manifest) else manifest

    def _fetch(self, folder: Path) -> bool:
        """Whether the artifact could be had from the URL; its lock is held."""
        if not (manifest := self._read_uploaded(folder.name)):
            return False
        fetched, files = folder.with_name(f"{folder.name}.fetched"), list(manifest["files"])
        shutil.rmtree(fetched, ignore_errors=True)  # of a fetch that was killed
        for file in files:
            (fetched / file).parent.mkdir(parents=True, exist_ok=True)
        write_json(fetched / MANIFEST, manifest)
        with open_url(self.url) as (remote, root), contextlib.suppress(FileNotFoundError):  # told as damage below
            remote.get([f"{root}/{folder.name}/{file}" for file in files], [str(fetched / file) for file in files])
        if damage := self._find_damage(fetched):
            print(f"artifact {folder.name} at {self.url} is replaced: {damage}", flush=True)
            shutil.rmtree(fetched)
            with open_url(self.url) as (remote, root):
                remote.rm_file(f"{root}/{folder.name}/{MANIFEST}")
            return False
        remove(folder)
        remove(folder.with_name(f"{folder.name}.partial"))
        os.replace(fetched, folder)
        self._uploaded.add(folder.name)
        return True

    def _upload(self, folder: Path) -> None:
        if not self.url or folder.name in self._uploaded:
            return
        if not self._read_uploaded(folder.name):
            files = list(read_manifest(folder)["files"])
            with open_url(self.url) as (remote, root):
                target = f"{root}/{folder.name}"
                with contextlib.suppress(FileNotFoundError):
                    remote.rm_file(f"{target}/{MANIFEST}")  # of an old one: its files are replaced
                for parent in {(Path(target) / file).parent.as_posix() for file in [*files, MANIFEST]}:
                    remote.makedirs(parent, exist_ok=True)
                remote.put([str(folder / file) for file in files], [f"{target}/{file}" for file in files])
                remote.pipe_file(f"{target}/{MANIFEST}", (folder / MANIFEST).read_bytes())
        self._uploaded.add(folder.name)

    def measure_free(self) -> int:
        """Bytes that are free on the disk of its folder, which may not be there yet."""
        root = self.root.resolve()
        return shutil.disk_usage(next(folder for folder in [root, *root.parents] if folder.exists())).free

    def specs(self, kind: Kind) -> list[dict[str, Any]]:
        """What the finished artifacts of a kind were made from; their files are not looked at."""
        specs: dict[str, dict[str, Any]] = {}
        for path in sorted(self.root.glob(f"{kind.name}-*/{MANIFEST}")):
            manifest = read_manifest(path.parent)
            if manifest.get("kind") == kind.name and "files" in manifest and not is_old(manifest):
                specs[path.parent.name] = manifest["spec"]
        if self.url:
            with open_url(self.url) as (remote, root):
                uploaded = {Path(path).parent.name for path in remote.glob(f"{root}/{kind.name}-*/{MANIFEST}")}
            manifests = {name: self._read_uploaded(name) for name in sorted(uploaded - specs.keys())}
            specs |= {name: m["spec"] for name, m in manifests.items() if m.get("kind") == kind.name}
        return list(specs.values())

    def _find_damage(self, folder: Path) -> str:
        """Why the artifact cannot be used; empty if it can. A file is hashed once, and again when touched."""
        try:
            manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
            for name, known in manifest["files"].items():
                path = folder / name
                if path.stat().st_size != known["bytes"] or hash_once(path) != known["sha256"]:
                    return f"its file {name} has changed"
        except FileNotFoundError as error:
            return f"its file {Path(error.filename).relative_to(folder).as_posix()} is missing"
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"its {MANIFEST} cannot be read"
        if not manifest["files"]:
            return "it holds no file"
        return "a new one was asked for" if is_old(manifest) else ""


def artifact_name(kind: Kind, spec: Spec) -> str:
    """`{kind}-{hash}`: the hash of the canonical JSON of kind, spec and recipe. Raises StoreError."""
    recipe = f"0.{kind.recipe}.0"  # before there were recipes, the package's version 0.1.0 stood for all of them
    try:
        text = canonical_json({"kind": kind.name, "spec": spec, "kardlib": recipe})
    except (TypeError, ValueError) as error:
        raise StoreError(f"the spec of a {kind.name!r} artifact must hold plain JSON values only: {error}") from None
    return f"{kind.name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


def canonical_json(value: Any) -> str:
    """The one text of a value: sorted keys, no spaces. Raises TypeError and ValueError for what JSON does not know."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def read_manifest(folder: Path) -> dict[str, Any]:
    """What is known of an artifact, finished or not; empty where nothing can be read."""
    try:
        return dict(json.loads((folder / MANIFEST).read_text("utf-8")))
    except (OSError, ValueError, TypeError):
        return {}


def is_old(manifest: Mapping[str, Any]) -> bool:
    """Whether an artifact was begun before the date in `$KARD_FORCE`."""
    return str(manifest.get("began", "")) < os.environ.get("KARD_FORCE", "")


@contextlib.contextmanager
def open_url(url: str) -> Iterator[tuple[Any, str]]:
    """The file system of a URL and the path in it. Raises StoreError for all its errors but FileNotFoundError."""
    try:
        import fsspec  # imported late: most stores are folders

        yield fsspec.core.url_to_fs(url)
    except (StoreError, FileNotFoundError):
        raise
    except Exception as error:
        if is_full(error):
            raise
        said = f"{type(error).__name__}: {first_line(error)}"
        raise StoreError(
            f"the store {re.sub('//[^/]*@', '//', url)} cannot be used ({said}): correct KARD_STORE, or mend the "
            "credentials or the network; what is finished is kept here"
        ) from error


@contextlib.contextmanager
def locked(root: Path, name: str, wait: bool = True) -> Iterator[bool]:
    """Hold the artifact's lock; the system releases it when the process ends, however it ends. Raises StoreError.

    Without `wait` it is False where another process holds the lock, and else True.
    """
    try:
        (root / ".locks").mkdir(parents=True, exist_ok=True)
        lock = FileLock(root / ".locks" / f"{name}.lock")
        try:
            held = lock.acquire(timeout=0)
        except Timeout:
            if not wait:
                yield False
                return
            print(f"waiting for another process that builds {name}", flush=True)
            held = lock.acquire()
    except OSError as error:
        if is_full(error):
            raise full_error(root) from error
        raise StoreError(
            f"cannot write to {root} ({error.strerror}): set KARD_STORE to a folder that you own"
        ) from error
    with held:
        yield True


def fingerprint(value: Any) -> str:
    """A short hash of anything that JSON can write: what an artifact's name says of its inputs."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def describe_files(folder: Path) -> dict[str, dict[str, Any]]:
    """Path within the folder -> size in bytes and sha256, of every file but the manifest."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST)
    return {p.relative_to(folder).as_posix(): {"bytes": p.stat().st_size, "sha256": hash_file(p)} for p in paths}


def check_begun(folder: Path, settings: Mapping[str, Any]) -> None:
    """Keep with its checkpoints what a training begins with. Raises StoreError if it began with something else."""
    path, settings = folder / "checkpoints" / "begun.json", json.loads(canonical_json(settings))
    if not path.exists():
        write_json(path, settings)
        return
    began = json.loads(path.read_text("utf-8"))
    for name in sorted(began.keys() | settings.keys()):
        if began.get(name) != settings.get(name):
            raise StoreError(
                f"{folder.name} was begun with {name} = {began.get(name)} and cannot go on with {settings.get(name)}: "
                "take the same settings again or another folder, or delete that one"
            )
