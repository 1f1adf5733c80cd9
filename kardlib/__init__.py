"""KARD and ReAugKD, stepped through, rerun and extended in notebooks."""

from pathlib import Path

__version__ = "0.1.0"
NANO = Path(__file__).parent / "nano_models"  # the models that ship with the package
