"""The paper's three question sets from the Hugging Face Hub, pinned by revision: what a dataset's name means without
`data_dir`.

They come without passages (set `knowledge.index`, e.g. to "enwiki-paragraphs") and without rationales. OpenbookQA and
MedQA-USMLE have the release's splits and ids; StrategyQA has its 1,603 training and 687 test questions under ids of
their own, and no development questions: the release's are its test questions once more.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kardlib.artifacts.store import full_error, is_full
from kardlib.data.files import SPLITS, DataError, Dataset, Question, Row, read_questions


class Source(NamedTuple):
    """Where a dataset lies, and who reads a file of it."""

    repository: str
    revision: str
    files: dict[str, str]  # split -> path in the repository
    read: Callable[[Path], list[Question]]


def read_openbookqa(path: Path) -> list[Question]:
    """Questions with the columns `id, question_stem, choices (text, label), answerKey`. Raises DataError."""
    questions = []
    for row in _read_parquet(path, ["id", "question_stem", "choices", "answerKey"]):
        choices = {name: list(values) for name, values in row.fields["choices"].items()}
        options = row.options([str(text) for text in choices["text"]], "choices")
        if row.text("answerKey") not in choices["label"]:
            raise row.error(f"the answer {row.text('answerKey')!r} is none of the choices", "fetch the file again")
        answer = choices["label"].index(row.text("answerKey"))
        questions.append(Question(row.text("id"), row.text("question_stem"), options, answer))
    return questions


def read_strategyqa(path: Path) -> list[Question]:
    """Questions with the columns `qid, question, answer` (true or false). Raises DataError."""
    return [
        Question(row.text("qid"), row.text("question"), ("yes", "no"), 0 if row.fields["answer"] else 1)
        for row in _read_parquet(path, ["qid", "question", "answer"])
    ]


HUB = {
    "medqa_usmle_hf": Source(
        "GBaker/MedQA-USMLE-4-options-hf", "17af9355ef89fba60de966eabaeba797c695f86e",
        {"train": "train.json", "dev": "dev.json", "test": "test.json"}, read_questions,
    ),
    "obqa": Source(
        "allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454",
        {"train": "main/train-00000-of-00001.parquet", "dev": "main/validation-00000-of-00001.parquet",
         "test": "main/test-00000-of-00001.parquet"}, read_openbookqa,
    ),
    "strategyqa": Source(
        "ChilleD/StrategyQA", "705562638fe1d8ca6bb98c66fc8f94d45fda8c83",
        {"train": "data/train-00000-of-00001-506370352f622815.parquet",
         "test": "data/test-00000-of-00001-bae602f3ee37f4ca.parquet"}, read_strategyqa,
    ),
}  # fmt: skip


GLUE = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"  # its repository and revision


def read_hub(name: str) -> Dataset:
    """A dataset of `HUB`, fetched once into the Hub's own cache. Raises DataError."""
    source = HUB[name]
    splits = {
        split: source.read(fetch(source.repository, source.revision, file, "KARD's release"))
        for split, file in source.files.items()
    }
    return Dataset(name, {split: splits.get(split, []) for split in SPLITS}, [], {})


def fetch(repository: str, revision: str, file: str, instead: str) -> Path:
    """A file of a dataset at the pinned revision, from the Hub's cache where it is there; `instead` is what a folder
    of one's own would hold. Raises DataError, and StoreError where the cache's disk is full.
    """
    from huggingface_hub import constants, hf_hub_download  # imported late: it takes half a second

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    except Exception as error:  # also what its HTTP library raises, which changes with its version
        if is_full(error):
            raise full_error(Path(constants.HF_HUB_CACHE)) from None
        raise DataError(
            f"{file} of {repository} could not be fetched from the Hugging Face Hub "
            f"({(str(error).strip() or type(error).__name__).splitlines()[0]}): check the network, or set data_dir to "
            f"the folder that holds {instead}"
        ) from None


def _read_parquet(path: Path, columns: list[str]) -> Iterator[Row]:
    import pandas as pd  # imported late, like what it reads with

    try:
        table = pd.read_parquet(path, columns=columns)
    except (OSError, ValueError, KeyError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{path}: no parquet file with the columns {', '.join(columns)} ({reason})") from None
    for number, fields in enumerate(table.to_dict("records"), 1):
        yield Row(path, number, {str(name): value for name, value in fields.items()})
