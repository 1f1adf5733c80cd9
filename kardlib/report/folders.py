"""Where a run's results belong: under `runs/`, by its scale, data and settings. `figures/` holds what is published."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kardlib import REPOSITORY, is_nano
from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import fingerprint
from kardlib.data.files import OWN
from kardlib.knobs import flatten
from kardlib.models.catalogue import SHORT
from kardlib.presets import preset

SHOWN = 40  # characters of a name that say what is changed


def run_name(settings: Mapping[str, Any]) -> str:
    """`{scale}-{dataset}`; where settings differ from that preset, also what differs, shortened, and a hash of it.

    `settings` are those of a run as JSON values, or some groups of them. Your own data count by their files' bytes, a
    release's by its name, wherever it lies. Raises SettingsError.
    """
    scale, dataset = settings.get("scale", "embedded"), settings.get("dataset", "world")
    folder = settings.get("data_dir")
    usual = dict(flatten(preset(scale, dataset, folder).model_dump(mode="json")))
    changed = {name: value for name, value in flatten(settings) if usual.get(name) != value}
    said = [f"{name}={value}" for name, value in changed.items()]
    if dataset == "own" and folder:
        found = [path for path in sorted(Path(folder).iterdir()) if path.name.split(".")[0] in OWN]
        changed["data"] = {path.name: hash_file(path) for path in found}
        said.insert(0, Path(folder).resolve().name)
    parts = [scale, dataset, *([",".join(said)[:SHOWN], fingerprint(changed)[:8]] if changed else [])]
    return re.sub(r"[^\w.,=-]+", "_", "-".join(parts))


def figures_folder(settings: Mapping[str, Any], root: Path | None = None, full: bool = False) -> Path:
    """`runs/{run_name(settings)}/figures`; from there `kard reproduce --publish` alone copies into `figures/`.

    `root` None: the repository, by a path from where one stands. A `full` run has a folder of its own. Raises
    SettingsError.
    """
    name = run_name(settings) + ("-full" if full else "")
    return (root or Path(os.path.relpath(REPOSITORY))) / "runs" / name / "figures"


def seen_from(folder: Path, value: Any) -> Any:
    """Settings whose relative paths of folders, e.g. of a model, are said as `folder` needs them."""
    if isinstance(value, Mapping):
        return {name: seen_from(folder, one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [seen_from(folder, one) for one in value]
    named = isinstance(value, str) and value != "" and value not in SHORT and not is_nano(value)
    return os.path.relpath(value, folder) if named and Path(value).is_dir() and not Path(value).is_absolute() else value
