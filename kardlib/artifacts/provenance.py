"""Where a result comes from: the date, the device, versions and the commit."""

import contextlib
import functools
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import kardlib
from kardlib import REPOSITORY
from kardlib.artifacts.device import describe_device

PACKAGES = ("torch", "transformers", "tokenizers", "accelerate", "peft", "pyserini", "faiss-cpu", "numpy")


def now() -> str:
    """The date in UTC; such strings sort by time."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def provenance(settings: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Where a result comes from: date, device, versions, the commit and whether `kardlib/` differs from it.

    `commit` and `dirty` are absent outside a git repository, `settings` where they are not given. It holds no path and
    no name of a user or machine.
    """
    origin = {"date": now(), "device": describe_device(), "versions": dict(read_versions())} | read_commit()
    return origin if settings is None else origin | {"settings": settings}


def describe_provenance() -> list[str]:
    """The same of this run for people: device, versions, and the commit, where there is one."""
    origin = provenance()
    facts = [origin["device"], *(f"{package} {version}" for package, version in origin["versions"].items())]
    return facts + (
        [f"commit {origin['commit']}{', changed' if origin['dirty'] else ''}"] if "commit" in origin else []
    )


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
    """Commit and dirtiness when the code was read. `kardlib/` alone counts: publishing writes figures."""
    if not (REPOSITORY / ".git").exists():
        return {}
    git = functools.partial(subprocess.run, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    try:
        commit = git(["git", "rev-parse", "--verify", "HEAD"]).stdout.strip()
        return {"commit": commit, "dirty": bool(git(["git", "status", "--porcelain", "--", "kardlib"]).stdout)}
    except (OSError, subprocess.CalledProcessError):  # no git here, or no commit yet
        return {}
