"""What a run would fetch: questions, models and indexes, with their sizes, and whether they are in their caches."""

import importlib.metadata
from typing import Any

from kardlib.data.hub import GLUE, HUB
from kardlib.models.catalogue import MINILM_PACKAGE, find_folder, find_model, find_revision, find_shape
from kardlib.retrieval.prebuilt import cache_folder
from kardlib.settings import GLUE_TASKS, RunSettings

QUESTIONS = 0.02e9  # bytes of a dataset's files, at most
GLUE_DATA = 0.08e9  # bytes of a GLUE task's files, at most
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
INDEXES = {  # pyserini's file, bytes
    "enwiki-paragraphs": ("lucene-index.enwiki-20180701-paragraphs", 17_725_958_785),
    "beir-v1.0.0-bioasq.flat": ("lucene-inverted.beir-v1.0.0-bioasq.flat.20221116.505594", 24_821_943_492),
}


def list_downloads(settings: RunSettings) -> list[dict[str, Any]]:
    """What would be fetched: its size in bytes (None: not known) and whether it is in its cache already."""
    found: list[dict[str, Any]] = []

    def add(what: str, name: str, revision: str | None, size: float | None, here: bool) -> None:
        found.append({"what": what, "name": name, "revision": revision, "bytes": size, "here": here})

    if settings.data_dir is None and settings.dataset in HUB:
        name, revision, files, _ = HUB[settings.dataset]
        add("questions", name, revision, QUESTIONS, all(in_cache(name, f, revision, "dataset") for f in files.values()))
    names = [*settings.students, settings.reranker.model, settings.rag.model, settings.teacher.verifier]
    if settings.dataset in GLUE_TASKS:
        names = [settings.reaugkd.teacher, settings.reaugkd.student]
        if settings.data_dir is None:
            add("questions", f"{GLUE[0]} {settings.dataset}", GLUE[1], GLUE_DATA, False)
    for name in dict.fromkeys(filter(None, names)):
        if model := find_model(name):
            commit = find_revision(model.name)
            here = commit is not None and any(in_cache(model.name, file, commit) for file in WEIGHTS)
            if name == "minilm" and not here:
                here = any(importlib.metadata.distributions(name=MINILM_PACKAGE))
            if name == "smollm2":
                here = find_folder(name) is not None
            add("model", model.name, commit, model.download, here)
        elif find_shape(name) is None:
            add("model", name, None, None, False)
    if (index := settings.knowledge.index) in INDEXES:
        file, size = INDEXES[index]
        add("index", index, None, size, any(cache_folder().glob(f"{file}.*/segments_*")))
    return found


def in_cache(repository: str, file: str, revision: str, kind: str = "model") -> bool:
    """Whether the Hub's cache on this machine has a file."""
    from huggingface_hub import try_to_load_from_cache  # imported late: a tenth of a second

    return isinstance(try_to_load_from_cache(repository, file, revision=revision, repo_type=kind), str)
