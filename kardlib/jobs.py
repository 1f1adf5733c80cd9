"""A bundle: the folder that carries trainings and writings to a machine without network, and their results back.

    bundle.json     the jobs as plain JSON, and the hash of every file that they need
    texts/          lists of texts, by their hash
    models/         models and tokenizers
    kardlib/        this package's code
    results/        what is finished, a folder for each job
    partial/        what is begun: a training's checkpoints

A job names the library's own function that makes an artifact (`Kind.builder`) and what that function is given.
`bundle.py` writes the folder and takes the results back, `work.py` does the jobs. Nothing here imports torch or
pydantic.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kardlib
from kardlib.artifacts.disk import hash_file
from kardlib.artifacts.store import fingerprint
from kardlib.data.prompts import Source
from kardlib.errors import KardError
from kardlib.models.catalogue import LOADERS

FORMAT = 1  # of bundles; raised when what stands in bundle.json or in a result changes
BUNDLE, RESULT, WEIGHTS = "bundle.json", "result.json", "model.safetensors"
RESULTS = "/results/"  # begins the name of what another job makes, where a job names its model
BROUGHT = ("losses.json", "texts.json")  # the files of a result that are always brought back


class BundleError(KardError, RuntimeError):
    """A bundle or a result in it is not what it should be, or does not fit this version."""


class JobSettings(SimpleNamespace):
    """A group of settings by the names of `settings.py`, which checked them when the bundle was written."""

    def of_training(self) -> dict[str, Any]:
        """What a training that goes on must agree in; the folder of its model may have moved."""
        return {name: value for name, value in vars(self).items() if name != "model"}

    def model_copy(self, update: dict[str, Any]) -> "JobSettings":
        """The same with some of them changed."""
        return JobSettings(**vars(self) | update)


@dataclass
class Bundle:
    """The jobs in a folder, by names that hold the hash of all that they depend on."""

    folder: Path
    run: str  # what it is about, for people
    commit: dict[str, Any]  # of the code that wrote it
    models: dict[str, dict[str, Any]]  # "hub": its name there, or empty; "sha256": of its weights, or empty
    jobs: dict[str, dict[str, Any]]
    files: dict[str, dict[str, Any]]
    takers: dict[str, list[str]] = field(init=False)  # by job those that take its model; "": those that take none

    def __post_init__(self) -> None:
        self.takers = {job: [] for job in ("", *self.jobs)}
        for job, record in self.jobs.items():
            self.takers[needed_job(record)].append(job)

    def result(self, job: str) -> Path:
        """The folder of a finished job."""
        return self.folder / "results" / job

    def is_done(self, job: str) -> bool:
        """Whether its result is there, and its weights as long as another job needs them."""
        needed = not all(map(self.is_done, self.takers[job]))
        return (self.result(job) / RESULT).is_file() and (not needed or (self.result(job) / WEIGHTS).is_file())

    def sort(self) -> list[str]:
        """Largest first, and right after each job those that take its model: then its weights can go."""

        def size(job: str) -> float:
            return float(self.jobs[job]["cost"]) + sum(map(size, self.takers[job]))

        def walk(some: list[str]) -> Iterator[str]:
            for job in sorted(some, key=lambda job: (-size(job), job)):
                yield job
                yield from walk(self.takers[job])

        return list(walk(self.takers[""]))


def name_job(record: Mapping[str, Any]) -> str:
    """Its kind and the hash of all that it depends on."""
    return f"{record['kind']}-{fingerprint([record[n] for n in ('kind', 'recipe', 'builder', 'spec', 'work')])}"


def settings_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """The student's settings among what a job is given."""
    groups = [value["settings"] for value in record["work"] if isinstance(value, dict) and "settings" in value]
    return next(group for group in groups if "model" in group)


def needed_job(record: Mapping[str, Any]) -> str:
    """The job whose model it takes, or nothing."""
    model = str(settings_of(record)["model"])
    return model.removeprefix(RESULTS) if model.startswith(RESULTS) else ""


def read_bundle(folder: Path) -> Bundle:
    """What bundle.json says. Raises BundleError where there is none, a torn one, or one of another version."""
    try:
        told = json.loads((folder / BUNDLE).read_text("utf-8"))
        written = f"kardlib {told.pop('kardlib')}, bundle format {told.pop('format')}"
        if written != (here := f"kardlib {kardlib.__version__}, bundle format {FORMAT}"):
            raise BundleError(
                f"{folder} was written by {written}, and this is {here}: do its jobs with the copy that it brings (cd "
                f"{folder} && python -m kardlib.work .), and take them back with the version that wrote it"
            )
        bundle = Bundle(folder, **told)
        changed = [job for job, record in bundle.jobs.items() if job != name_job(record)]
    except (FileNotFoundError, NotADirectoryError):
        raise BundleError(f"there is no bundle in {folder}: give the folder that kard bundle wrote") from None
    except (ValueError, KeyError, TypeError, AttributeError, StopIteration):
        raise BundleError(f"{folder / BUNDLE} cannot be read: carry it again, what is finished is kept") from None
    if changed:
        raise BundleError(f"{folder / BUNDLE} has changed ({changed[0]}): carry it again, what is finished is kept")
    return bundle


def check_files(folder: Path, files: Mapping[str, Mapping[str, Any]]) -> None:
    """Raise BundleError for the first of these files that is missing or not as it was written."""
    for name, known in files.items():
        path = folder / name
        if not path.is_file() or path.stat().st_size != known["bytes"] or hash_file(path) != known["sha256"]:
            said = "has changed" if path.is_file() else "is missing"
            raise BundleError(f"the file {name} of {folder} {said}: carry it again, what is finished is kept")


# What a job is given


def decode(value: Any, bundle: Bundle) -> Any:
    """An argument as the builder takes it, from what bundle.json says of it. Raises BundleError."""
    if not isinstance(value, dict):
        return value
    if "texts" in value:
        return read_texts(bundle, value["texts"])
    if "pairs" in value:
        return list(zip(*(read_texts(bundle, name) for name in value["pairs"]), strict=True))
    knobs = JobSettings(**value["settings"])
    return knobs.model_copy({"model": find_model(bundle, knobs.model)}) if "model" in value["settings"] else knobs


def read_texts(bundle: Bundle, name: str) -> list[Source]:
    """The texts of that hash; bundle.json knows the hash of their file."""
    return list(json.loads((bundle.folder / "texts" / f"{name}.json").read_text("utf-8")))


def find_model(bundle: Bundle, name: str) -> str:
    """The folder of a model, or its name on the Hub where no folder is there. Raises BundleError."""
    if name in LOADERS:
        return name
    if name.startswith(RESULTS):
        return str(bundle.result(name.removeprefix(RESULTS)))
    known, folder = bundle.models[name], bundle.folder / "models" / name
    if not folder.is_dir() and not known["hub"]:
        raise BundleError(f"the bundle came without the model {name}: put its folder at {folder}")
    if folder.is_dir() and known["sha256"] and hash_file(folder / WEIGHTS) != known["sha256"]:
        raise BundleError(f"{folder / WEIGHTS} holds other weights than those that the bundle was written for")
    return str(folder if folder.is_dir() else known["hub"])


def read_result(folder: Path) -> dict[str, Any]:
    """What a finished job says of itself. Raises BundleError where it cannot be read, or belongs to another job."""
    try:
        result = json.loads((folder / RESULT).read_text("utf-8"))
        named = all(Path(name).name == name for name in result["files"]) and result["job"] == folder.name
        whole = {"need", "seconds", "peak_memory"} <= result.keys() and "device" in result["provenance"]
        if not named or not whole or not result["files"].keys() & {*BROUGHT} or not isinstance(result["weights"], dict):
            raise ValueError
        return dict(result)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise BundleError(f"{folder / RESULT} cannot be read: delete {folder} to have that job done again") from None
