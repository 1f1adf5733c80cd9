"""What was trained for hours, in one small file: texts, numbers and losses, but no weights.

    pack(store, file)      `kard pack`: whatever is finished
    unpack(file, store)    `kard unpack`: into another store, where `kard reproduce` finds it and trains only the rest

A model is packed as the hash of its weights. `identify` reads it, so that all that was made with them keeps its name.
"""

import io
import json
import lzma
import tarfile
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path, PurePosixPath

from kardlib.artifacts.disk import atomic_write, hash_file
from kardlib.artifacts.store import MANIFEST, Kind, Store, artifact_name, read_manifest
from kardlib.errors import KardError, first_line
from kardlib.jobs import BROUGHT, WEIGHTS
from kardlib.models.catalogue import ELSEWHERE

LEFT_OUT = {"index", "run", "smollm2", "encoder"}  # kinds that are fetched, or made anew without training


class PackingError(KardError, RuntimeError):
    """A file cannot be packed, or holds something else than artifacts."""


def pack(store: Store, file: Path) -> str:
    """Write what is finished into a tar file, compressed by LZMA; a sentence that says what it holds.

    The same artifacts give the same bytes. Raises PackingError where nothing is finished, and StoreError.
    """
    folders = {
        folder: kind
        for folder in sorted(path.parent for path in store.root.glob(f"*/{MANIFEST}"))
        if (kind := str(read_manifest(folder).get("kind"))) not in LEFT_OUT
        and not folder.suffix  # of one that was begun
        and store.find(folder.name)
    }
    if file.is_dir():
        raise PackingError(f"{file} is a folder: name a file in it that ends in .tar.xz")
    if not folders:
        raise PackingError(f"there is nothing to pack in {store.root}: set KARD_STORE to the store of a run")
    with atomic_write(file) as temporary, tarfile.open(temporary, "w:xz", preset=9) as tar:
        for folder in folders:
            for name, content in read_light(folder).items():
                member = tarfile.TarInfo(f"{folder.name}/{name}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return f"{file}: {describe(Counter(folders.values()))}; {file.stat().st_size / 1e6:.1f} MB"


def read_light(folder: Path) -> dict[str, bytes]:
    """The files of an artifact and its manifest, where a model is the hash of its weights."""
    manifest = read_manifest(folder)
    known = manifest["files"]
    files = {name: (folder / name).read_bytes() for name in light_files(known)}
    for weights in (PurePosixPath(name) for name in known if PurePosixPath(name).name == WEIGHTS):
        files[str(weights.with_name(ELSEWHERE))] = json.dumps({"sha256": known[str(weights)]["sha256"]}).encode()
    return {MANIFEST: json.dumps(manifest).encode()} | files


def light_files(names: Collection[str]) -> list[str]:
    """Those of an artifact's files that are packed: all but a model's, of which what it brought is kept."""
    paths = [PurePosixPath(name) for name in names]
    models = {path.parent for path in paths if path.name == WEIGHTS}
    return [str(path) for path in paths if path.parent not in models or path.name in BROUGHT]


def unpack(file: Path, store: Store) -> str:
    """Put what was packed into a store, but what is there already; a sentence that says what.

    Raises PackingError for a file that is missing, damaged or no pack, with the store as it was.
    """
    taken, there = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory() as temporary:
        try:
            whole = lzma.decompress(file.read_bytes())  # to its end, where the check stands: tarfile stops before it
            with tarfile.open(fileobj=io.BytesIO(whole), mode="r:") as tar:
                tar.extractall(temporary, filter="data")  # no links, nothing outside the folder
        except (OSError, tarfile.TarError, lzma.LZMAError) as error:
            raise PackingError(f"{file} cannot be unpacked ({first_line(error)}): fetch or copy it again") from None
        artifacts = {folder: read_artifact(folder, file) for folder in sorted(Path(temporary).iterdir())}
        for folder, (kind, spec, made) in artifacts.items():
            if store.has(kind, spec):
                there[kind.name] += 1
                continue
            files = {str(path.relative_to(folder)): path for path in folder.rglob("*") if path.is_file()}
            del files[MANIFEST]
            store.take(kind, spec, files, made)
            taken[kind.name] += 1
    return f"into the store: {describe(taken) or 'nothing'}" + (f"; there already: {describe(there)}" if there else "")


def read_artifact(folder: Path, file: Path) -> tuple[Kind, dict[str, object], dict[str, object]]:
    """Kind, spec, and what is said of its making.

    Raises PackingError for a folder with another name than theirs, and for files that are not those that were packed.
    """
    manifest = read_manifest(folder)
    try:
        kind, spec = Kind(str(manifest["kind"]), int(manifest["recipe"])), dict(manifest["spec"])
        made = {"seconds": manifest["seconds"], "provenance": manifest["provenance"]}
        made["resumed"] = manifest.get("resumed", False)  # then the seconds are those of the last part
        known = {name: str(manifest["files"][name]["sha256"]) for name in light_files(manifest["files"])}
    except (KeyError, TypeError, ValueError):
        raise PackingError(f"{file} holds {folder.name}, which is no artifact: make it with kard pack") from None
    if artifact_name(kind, spec) != folder.name:
        raise PackingError(f"{file} holds {folder.name}, which was not made from what it says: make it with kard pack")
    for name, sha256 in known.items():
        if not (folder / name).is_file() or hash_file(folder / name) != sha256:
            raise PackingError(
                f"{file} holds {folder.name}, whose {name} is not the one that was packed: fetch it again"
            )
    return kind, spec, made


def describe(kinds: Counter[str]) -> str:
    """How many of which kind."""
    return ", ".join(f"{number} {kind}" for kind, number in sorted(kinds.items()))
