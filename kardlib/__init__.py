"""KARD and ReAugKD, stepped through, rerun and extended in notebooks."""

import os
from pathlib import Path

__version__ = "0.1.0"
REPOSITORY = Path(__file__).resolve().parents[1]
NANO = Path(__file__).parent / "nano_models"  # the models that ship with the package


def is_nano(model: str) -> bool:
    """Whether a name is that of one of the shipped nano models; a folder elsewhere is none, whatever it holds."""
    return model == Path(model).name and (NANO / model / "config.json").is_file()


def is_smollm2(model: str) -> bool:
    """Whether a name, a Hub id or a folder is SmolLM2's."""
    return Path(model).name.lower().startswith("smollm2")


def python_path() -> str:
    """`$PYTHONPATH` for a process of its own, which finds this package first, wherever it is started."""
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")]))
