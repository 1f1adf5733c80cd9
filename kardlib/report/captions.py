"""What each figure shows and what of the papers it stands beside, read from `captions.yml`: captions and alt texts."""

from collections.abc import Iterable
from functools import cache
from pathlib import Path

import yaml
from pydantic import Field

from kardlib.reaugkd.tasks import COLUMNS
from kardlib.settings import Group, validate

FILE = Path(__file__).with_name("captions.yml")
# Data sets by how a figure's name ends
DATASETS = {"": "closed world", "_obqa": "OpenbookQA", "_strategyqa": "StrategyQA", "_medqa_usmle_hf": "MedQA"}
DATASETS |= {f"_{task}": columns.folder for task, columns in COLUMNS.items()} | {"_glue": "GLUE"}


class Caption(Group):
    """A figure in words."""

    beside: str = Field(min_length=1)
    shows: str = Field(min_length=1)


@cache
def read_captions() -> dict[str, Caption]:
    """The captions by figure. Raises SettingsError."""
    return {name: validate(Caption, value) for name, value in yaml.safe_load(FILE.read_text("utf-8")).items()}


def find_caption(figure: str) -> Caption:
    """The caption of a figure by its name; a real dataset is named too, and a figure of one's own by its name alone."""
    named = [name for name in read_captions() if figure == name or figure.startswith(f"{name}_")]
    caption = read_captions()[max(named, key=len)] if named else Caption(beside="ours", shows=figure.replace("_", " "))
    dataset = next((title for end, title in DATASETS.items() if end and figure.endswith(end)), "")
    return caption.model_copy(update={"beside": f"{caption.beside}, on {dataset}"}) if dataset else caption


def is_usual(figure: str) -> bool:
    """Whether a usual run of the closed world draws a figure: it is neither of a real dataset nor of a full grid."""
    return not figure.endswith((*filter(None, DATASETS), "_full"))


def find_drawn(sources: Iterable[str]) -> Caption | None:
    """The caption of what the first of some cells that names a figure draws; None where none does."""
    for source in sources:
        if named := [name for name in read_captions() if f'"{name}' in source or f"{name}(" in source]:
            return find_caption(max(named, key=len))
    return None
