"""The datasets on the Hugging Face Hub, each at a pinned revision: KARD's three question sets, and GLUE's repository.

They stand in for a dataset's files where `data_dir` is not set. The question sets have no passages (set
`knowledge.index`, e.g. to "enwiki-paragraphs") and no rationales. OpenbookQA and MedQA-USMLE have the release's splits
and ids. StrategyQA has the release's 1,603 training and 687 test questions under other ids, and no development
questions: the release repeats its test questions there.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from kardlib.artifacts.disk import full_error, is_full
from kardlib.data.files import SPLITS, Dataset, Question, read_questions
from kardlib.data.records import Record, say_shared, with_own_ids
from kardlib.errors import DataError, first_line


class HubDataset(NamedTuple):
    """A dataset's repository and revision on the Hub, its files, and the reader of one file."""

    repository: str
    revision: str
    files: dict[str, str]  # split -> path in the repository
    read: Callable[[Path], list[Question]]


def read_openbookqa(path: Path) -> list[Question]:
    """Questions from the columns `id, question_stem, choices (text, label), answerKey`. Raises DataError."""
    questions = []
    for record in with_own_ids(read_parquet(path, ["id", "question_stem", "choices", "answerKey"])):
        choices, right = record.fields["choices"], record.text("answerKey")
        options = record.options([str(text) for text in choices["text"]], "choices")
        letters = list(choices["label"])[: len(options)]
        if right not in letters:
            raise record.error(f"the answer {right!r} is none of the choices", "fetch the file again")
        text = record.filled("question_stem", "question")
        questions.append(Question(record.id(), text, options, letters.index(right)))
    return questions


def read_strategyqa(path: Path) -> list[Question]:
    """Questions from the columns `qid, question, answer` (true or false). Raises DataError."""
    questions = []
    for record in with_own_ids(read_parquet(path, ["qid", "question", "answer"]), "qid"):
        if not isinstance(answer := record.fields["answer"], bool):
            raise record.error(f"the answer is {answer!r}, neither true nor false", "fetch the file again")
        text = record.filled("question", "question")
        questions.append(Question(record.id("qid"), text, ("yes", "no"), 0 if answer else 1))
    return questions


HUB = {
    "medqa_usmle_hf": HubDataset(
        "GBaker/MedQA-USMLE-4-options-hf", "17af9355ef89fba60de966eabaeba797c695f86e",
        {"train": "train.json", "dev": "dev.json", "test": "test.json"}, read_questions,
    ),
    "obqa": HubDataset(
        "allenai/openbookqa", "388097ea7776314e93a529163e0fea805b8a6454",
        {"train": "main/train-00000-of-00001.parquet", "dev": "main/validation-00000-of-00001.parquet",
         "test": "main/test-00000-of-00001.parquet"}, read_openbookqa,
    ),
    "strategyqa": HubDataset(
        "ChilleD/StrategyQA", "705562638fe1d8ca6bb98c66fc8f94d45fda8c83",
        {"train": "data/train-00000-of-00001-506370352f622815.parquet",
         "test": "data/test-00000-of-00001-bae602f3ee37f4ca.parquet"}, read_strategyqa,
    ),
}  # fmt: skip
GLUE = "nyu-mll/glue", "bcdcba79d07bc864c1c254ccfcedcce55bcc9a8c"  # repository and revision


def read_hub(name: str) -> Dataset:
    """A dataset of `HUB`, fetched once into the Hub's own cache. Raises what `fetch` and its reader raise."""
    repository, revision, files, read = HUB[name]
    splits = {split: read(fetch(repository, revision, file, "KARD's release")) for split, file in files.items()}
    say_shared(repository, *([q.text for q in splits[split]] for split in ("train", "test")))
    return Dataset(name, {split: splits.get(split, []) for split in SPLITS}, [], {})


def fetch(repository: str, revision: str, file: str, instead: str) -> Path:
    """A file of a dataset, downloaded if it is not in the Hub's cache; `instead` is what a folder would hold.

    Raises DataError if it cannot be fetched, and StoreError if the cache's disk is full.
    """
    from huggingface_hub import constants, hf_hub_download  # imported late: it takes half a second

    try:
        return Path(hf_hub_download(repository, file, repo_type="dataset", revision=revision))
    except Exception as error:  # also the HTTP library's own errors, whose classes change with the Hub client's version
        if is_full(error):
            raise full_error(Path(constants.HF_HUB_CACHE)) from None
        raise DataError(
            f"{file} of {repository} could not be fetched from the Hugging Face Hub ({first_line(error)}): check the "
            f"network, or set data_dir to the folder that holds {instead}"
        ) from None


def read_parquet(path: Path, columns: list[str]) -> Iterator[Record]:
    """The rows of a parquet file, counted from 1. Raises DataError."""
    import pandas as pd  # imported late: it takes half a second

    try:
        table = pd.read_parquet(path, columns=columns)
    except (OSError, ValueError, KeyError) as error:
        wanted = f"no parquet file with the columns {', '.join(columns)}"
        raise DataError(f"{path}: {wanted} ({first_line(error)})") from None
    for number, fields in enumerate(table.to_dict("records"), 1):
        yield Record(path, number, {str(name): value for name, value in fields.items()})
