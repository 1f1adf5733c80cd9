"""Take a grid's trainings to a machine without Java, Jupyter and network.

    bundle(experiment, cells, folder)     here, `kard bundle`: what the store lacks becomes jobs
    python -m kardlib.work folder         there: the jobs are done
    unbundle(folder, store)               here, `kard unbundle`: their results go into the store

Whatever comes before the students is made here: rationales, searches, rerankers and what they rank. They are small, and
what a student is asked depends on them. RAG's students are trained together with their retriever and stay here too.

What is taken back is checked against its job; then it is an artifact as if made here. A student whose weights stayed on
the other machine is one that holds their hash: `identify` reads it, so that its predictions have the names that they
would have had.
"""

import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import kardlib
from kardlib.artifacts.disk import hash_once, write_json
from kardlib.artifacts.engine import Job, K
from kardlib.artifacts.provenance import read_commit
from kardlib.artifacts.store import MANIFEST, Kind, Store, artifact_name, canonical_json, describe_files, fingerprint
from kardlib.data.prompts import NEW_TOKENS, Source
from kardlib.data.records import read_losses
from kardlib.errors import first_line
from kardlib.jobs import (
    BROUGHT,
    BUNDLE,
    FORMAT,
    RESULT,
    RESULTS,
    WEIGHTS,
    Bundle,
    BundleError,
    check_files,
    name_job,
    needed_job,
    read_bundle,
    read_result,
    settings_of,
)
from kardlib.kard.experiment import PREDICTIONS, Cell, Experiment, describe_run, writing_job
from kardlib.kard.grids import all_grids, numbers_at
from kardlib.kard.lengths import CHARACTERS
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import (
    ADAPTED,
    STUDENT,
    list_cells,
    list_writings,
    prepare_all,
    train_students,
    training_examples,
)
from kardlib.kard.prepare import prepare
from kardlib.kard.rankings import Reading, read_passages
from kardlib.models.catalogue import (
    ELSEWHERE,
    LOADERS,
    OF_A_MODEL,
    SHORT,
    find_folder,
    find_revision,
    find_shape,
    identify,
    needs_this_process,
)
from kardlib.settings import Group, StudentSettings

KINDS = {kind.name: kind for kind in (ADAPTED, STUDENT, PREDICTIONS)}
WRITING = 20  # times as long as in training an operation takes in writing: one token at a time (`plan.DEVICES`)


def grid_cells(experiment: Experiment, numbers: Sequence[str], rag: bool = False) -> list[Cell]:
    """The cells of these notebooks' grids, RAG's if asked for. Raises BundleError for a notebook without a grid."""
    settings, steps = experiment.settings, 1
    if "07" in numbers:
        three = prepare(experiment, numbers_at(settings)[3])
        examples = training_examples(three, Cell("kard_bm25", experiment.student, 0))
        steps = settings.student.of(experiment.student, "rationale", reads=True).count_steps(len(examples))
    grids = all_grids(settings, experiment.methods, steps)
    if unknown := sorted({*numbers} - grids.keys()):
        raise BundleError(f"notebook {unknown[0]} has no grid on {settings.dataset}: name some of {', '.join(grids)}")
    rows = [row for number in numbers for row in grids[number] if rag or not METHODS[row.method].rag]
    return [cell for row in rows for cell in list_cells([row], dict(row.knobs).get("seeds", settings.seeds))]


def bundle(experiment: Experiment, cells: Iterable[Cell], folder: Path, with_models: bool = True) -> Bundle:
    """Write the students and the test predictions of cells that the store lacks, as jobs; `folder` may hold others.

    Raises BundleError, and what preparing and ranking raise.
    """
    packed = Packed(folder, with_models, *open_folder(folder))
    asked = prepare_all(experiment, cells)
    students = train_students(experiment, asked, packed.make)
    read = read_passages(Reading(experiment, "test", asked, students))
    writings = list_writings("test", asked, students, read)
    packed.make(experiment.store, PREDICTIONS, {key: writing_job(*work) for key, work in writings.items()})
    shutil.rmtree(folder / "kardlib", ignore_errors=True)
    no_code = shutil.ignore_patterns("report", "nano_models", "__pycache__")  # no job draws
    shutil.copytree(Path(kardlib.__file__).parent, folder / "kardlib", ignore=no_code)
    parts = [folder / part for part in ("kardlib", "models", "texts")]
    files = {f"{p.name}/{name}": known for p in parts if p.is_dir() for name, known in describe_files(p).items()}
    told = {"format": FORMAT, "kardlib": kardlib.__version__, "run": describe_run(experiment.settings)}
    told |= {"commit": read_commit(), "models": packed.models, "jobs": packed.jobs, "files": files}
    write_json(folder / BUNDLE, told)
    return read_bundle(folder)


def describe_bundle(made: Bundle) -> str:
    """How many jobs, their size, and what the other machine needs."""
    kinds = Counter(record["kind"] for record in made.jobs.values())
    sizes = Counter[str]()
    for name, known in made.files.items():
        sizes[name.partition("/")[0]] += known["bytes"]
    lora = any(settings_of(record)["lora"] for record in made.jobs.values())
    missing = sorted(name for name in made.models if not (made.folder / "models" / name).is_dir())
    return "\n".join(
        [
            f"{made.folder}: {', '.join(f'{number} {kind}' for kind, number in kinds.items()) or 'no jobs'}; "
            f"{sizes.total() / 1e6:.1f} MB ({', '.join(f'{part} {size / 1e6:.1f}' for part, size in sizes.items())})",
            f"needed there: Linux, Python 3.11, torch, transformers, accelerate, safetensors{', peft' * lora}",
            *(
                f"and the model {name}, in {made.folder.name}/models/{name} or by its name on the Hub"
                for name in missing
            ),
            f"there: cd {made.folder.name} && python -m kardlib.work .",
        ]
    )


def open_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The models and jobs of the bundle in a folder, made if it is missing. Raises BundleError for another folder."""
    if (folder / BUNDLE).is_file():
        found = read_bundle(folder)
        return found.models, found.jobs
    if folder.is_file():
        raise BundleError(f"{folder} is a file: name a new folder")
    if folder.exists() and {path.name for path in folder.iterdir()} - {"models", "texts", "kardlib"}:
        raise BundleError(f"{folder} holds other things than a bundle: name a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    return {}, {}


@dataclass
class Packed:
    """What goes into a bundle: `make` stands in for `make_all` and notes the missing artifacts as jobs."""

    folder: Path
    with_models: bool
    models: dict[str, dict[str, Any]]
    jobs: dict[str, dict[str, Any]]
    parameters: dict[str, int] = field(default_factory=dict)  # of the models in jobs, as these name them
    elsewhere: dict[str, tuple[Any, ...]] = field(default_factory=dict)  # students of the store without their weights

    def make(self, store: Store, kind: Kind, jobs: Mapping[K, Job], *_: Any) -> dict[K, Path]:
        """By key the artifact's folder or, where the store has none, a path that stands for what a job will make."""
        folders = {}
        for key, (spec, work) in jobs.items():
            label = describe_key(key, work[-1])
            found = store.find(artifact_name(kind, spec))
            if found and (found / ELSEWHERE).is_file():
                self.elsewhere[str(found)] = (kind, spec, work, label)
            folders[key] = found or Path(RESULTS + self.add(kind, spec, work, label))
        return folders

    def add(self, kind: Kind, spec: Mapping[str, Any], work: Sequence[Any], label: str) -> str:
        """The name of the job that makes an artifact."""
        encoded = [self.encode(value) for value in work]
        record = {"kind": kind.name, "recipe": kind.recipe, "builder": kind.builder, "spec": spec, "work": encoded}
        name, size = name_job(record), self.parameters[str(settings_of(record)["model"])]
        self.parameters[RESULTS + name] = size
        self.jobs[name] = record | {"label": label, "parameters": size, "cost": count_operations(kind, work) * size}
        return name

    def encode(self, value: Any) -> Any:
        """An argument of a builder as JSON (`jobs.decode`); texts go into files."""
        if isinstance(value, StudentSettings):
            model, revision = self.add_model(value.model, value.revision)
            return {"settings": value.model_dump(mode="json") | {"model": model, "revision": revision}}
        if isinstance(value, Group):
            return {"settings": value.model_dump(mode="json")}
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            return {"pairs": [self.add_texts(list(texts)) for texts in zip(*value, strict=True)]}
        return {"texts": self.add_texts(value), "number": len(value)} if isinstance(value, list) else value

    def add_texts(self, texts: list[Source]) -> str:
        """The hash of texts, which are written unless another job has them."""
        name = fingerprint(texts)
        if not (path := self.folder / "texts" / f"{name}.json").is_file():
            write_json(path, texts)
        return name

    def add_model(self, model: str, revision: str | None) -> tuple[str, str | None]:
        """How jobs name a model, and its revision. Raises BundleError, and DataError where the Hub is out of reach."""
        if model in self.elsewhere:  # its weights are needed again: the job that makes them comes along
            return RESULTS + self.add(*self.elsewhere[model]), None
        if needs_this_process(model):
            raise BundleError(f"only the notebook that registered the student {model!r} can make it: leave it out")
        shape = find_shape(model)
        if model.startswith(RESULTS) or model in LOADERS:
            name, revision = model, None
        else:
            name, revision = self.add_folder(model, revision)
        self.parameters.setdefault(name, shape.parameters if shape else 10**8)  # a guess
        return name, revision

    def add_folder(self, model: str, revision: str | None) -> tuple[str, str | None]:
        """The name of a model's folder in the bundle, which need not come along, and its revision on the Hub."""
        source = find_folder(model) or Path(model)
        if (source / WEIGHTS).is_file():
            name, revision = f"{source.name}-{identify(model)}", None
            self.models[name] = {"hub": "", "sha256": hash_once(source / WEIGHTS)}
        else:
            revision = revision or find_revision(model)
            name = model.replace("/", "--") + (f"-{revision[:8]}" if revision else "")
            self.models[name] = {"hub": model, "sha256": ""}
        nowhere_else = model not in SHORT and (source / MANIFEST).is_file()  # but in the store
        if (self.with_models or nowhere_else) and not (self.folder / "models" / name).is_dir():
            self.copy_model(fetch_model(model, revision) if self.models[name]["hub"] else source, name)
        return name, revision

    def copy_model(self, source: Path, name: str) -> None:
        """Copy a model's folder, whole or not at all. Raises BundleError for one without safetensors."""
        files = [path for path in source.iterdir() if path.is_file() and path.suffix in OF_A_MODEL]
        if not any(path.suffix == ".safetensors" for path in files):
            raise BundleError(f"{name} has no safetensors: load it once here, which says how to convert it")
        unfinished = self.folder / "models" / f"{name}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir(parents=True)
        for path in files:
            shutil.copyfile(path, unfinished / path.name)
        os.replace(unfinished, self.folder / "models" / name)


def describe_key(key: Any, seed: int) -> str:
    """A job in a few words, from what tells it from others in its grid."""
    said = {name: getattr(key, name, None) for name in ("student", "model", "learns", "writes", "reads", "corpus")}
    words = [value if name in ("student", "model") else f"{name} {value}" for name, value in said.items()
             if value and isinstance(value, str)]  # fmt: skip
    return f"{', '.join(words)}, seed {seed}"


def fetch_model(name: str, revision: str | None) -> Path:
    """The folder in the Hub's cache. Raises BundleError."""
    from huggingface_hub import snapshot_download  # imported late: it takes half a second

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=[f"*{ending}" for ending in OF_A_MODEL]))
    except Exception as error:  # whatever the Hub client's HTTP library raises
        why = f"the Hub does not give {name} ({first_line(error)})"
        raise BundleError(f"{why}: correct it, or use --without-models") from None


def count_operations(kind: Kind, work: Sequence[Any]) -> float:
    """What a job costs for each of its model's parameters: six operations a token in training, two in writing."""
    texts, knobs = work[0], next(value for value in work if isinstance(value, StudentSettings))
    if kind is ADAPTED:
        knobs = knobs.model_copy(update={"epochs": work[1].epochs, "steps": None})
    read = sum(len(text) for item in texts for text in ([item] if isinstance(item, str) else item)) / CHARACTERS
    if kind is PREDICTIONS:
        return 2 * (read + WRITING * len(texts) * knobs.samples * (knobs.max_new_tokens or NEW_TOKENS) / 2)
    return 6 * read * knobs.count_seen(len(texts)) / len(texts)


# The way back


def unbundle(folder: Path, store: Store) -> str:
    """Check what was brought back and put it into the store; a sentence that says how many of what.

    Raises BundleError, once all good results are in the store, where one is not good or missing.
    """
    bundle, taken, problems, weights = read_bundle(folder), Counter[str](), list[str](), dict[str, str]()
    missing = {job for job in bundle.jobs if not (bundle.result(job) / RESULT).is_file()}
    for job in [job for job in bundle.sort() if job not in missing]:
        try:
            weights[job] = take_result(bundle, job, weights, store)
            taken[bundle.jobs[job]["kind"]] += 1
        except BundleError as error:
            problems.append(str(error))
    said = f"in the store: {', '.join(f'{number} {kind}' for kind, number in taken.items()) or 'nothing'}"
    if problems:
        more = f" (and {len(problems) - 1} more such results)" if len(problems) > 1 else ""
        raise BundleError(f"{problems[0]}{more}; {said}")
    if missing:
        raise BundleError(
            f"{len(missing)} of {len(bundle.jobs)} jobs have no result yet: go on with python -m kardlib.work "
            f"there, or carry all of results/ back; {said}"
        )
    return said


def take_result(bundle: Bundle, job: str, weights: Mapping[str, str], store: Store) -> str:
    """Put one result into the store; the sha256 of its weights, empty for texts. Raises BundleError and StoreError.

    `weights` are those of the jobs before it.
    """
    record, folder, result = bundle.jobs[job], bundle.result(job), read_result(bundle.result(job))
    kind = KINDS[record["kind"]]
    if kind.recipe != record["recipe"]:
        raise BundleError(f"{job} was bundled by recipe {record['recipe']}, which is {kind.recipe} now: bundle again")
    spec = complete_spec(bundle, job, result["need"], weights)
    whole = all((folder / name).is_file() for name in result["files"])
    brought = {name: known for name, known in result["files"].items() if whole or name in BROUGHT}
    check_files(folder, brought)
    check_result(bundle, job)
    sha256 = str(result["weights"].get("sha256", ""))
    there = store.find(artifact_name(kind, spec))
    if there and sha256 and identify(str(there)) != sha256[:16]:
        raise BundleError(f"{job} is in the store as {there.name}, with other weights: delete one of the two")
    files: dict[str, Path | bytes] = {name: folder / name for name in brought}
    if not whole:
        files[ELSEWHERE] = json.dumps({"sha256": sha256, "device": result["provenance"]["device"]}).encode()
    elif there and (there / ELSEWHERE).is_file():  # the same student comes again, with its weights
        shutil.rmtree(there)
    made = {"seconds": result["seconds"], "resumed": result.get("resumed", False)}
    made["provenance"] = result["provenance"] | {"peak_memory": result["peak_memory"]}
    store.take(kind, spec, files, made)
    return sha256


def complete_spec(bundle: Bundle, job: str, made_with: str, weights: Mapping[str, str]) -> dict[str, Any]:
    """What names a job's artifact, with the hash of the weights that another job made for it. Raises BundleError."""
    spec, need = canonical_json(bundle.jobs[job]["spec"]), needed_job(bundle.jobs[job])
    if need:
        if need not in weights:
            raise BundleError(f"{job} needs the result of {need}, which is missing or not good: do that job again")
        spec = spec.replace(RESULTS + need, weights[need][:16])
        if made_with != weights[need] or weights[need][:16] not in spec:
            raise BundleError(f"{job} was made with other weights than {need} has: delete its result and do it again")
    return dict(json.loads(spec))


def check_result(bundle: Bundle, job: str) -> None:
    """Raise BundleError where there are more or fewer texts than were asked for, or a loss is no number."""
    folder, (first, second, *_) = bundle.result(job), bundle.jobs[job]["work"]
    if bundle.jobs[job]["kind"] == PREDICTIONS.name:
        texts = json.loads((folder / "texts.json").read_text("utf-8"))
        if [len(samples) for samples in texts] != [second["settings"]["samples"]] * first["number"]:
            raise BundleError(f"{job} has not written a text for every source: delete {folder} and do it again")
    elif not all(map(math.isfinite, read_losses(folder).values())):
        raise BundleError(f"the loss of {job} became infinite or no number: lower student.lr and bundle again")
