"""The scales: what each changes of the settings' defaults, which are the paper's where it states a value.

Learning rates, epochs and temperatures of the small scales were chosen on development data, never
on test (docs/LOG.md).
"""

from typing import Any

from kardlib.knobs import SettingsError, validate
from kardlib.settings import GLUE_TASKS, RunSettings

REAUGKD_WORLD: dict[str, Any] = {
    "pooling": "mean", "dev": 600, "teacher_lr": 2e-3, "teacher_epochs": 5, "lr": 2e-3, "epochs": 3, "max_tokens": 64,
    "relational_weight": 4.0,
}  # fmt: skip
SMOKE: dict[str, Any] = {
    "seeds": [0], "students": ["t5-nano-small"],
    "world": {"ailments": 24, "cases": 40, "notes": 20, "train": 96, "dev": 24, "test": 24},
    "teacher": {"rationales": 2},
    "retrieval": {"candidates": 20, "k": 2, "k_training": 2},
    "reranker": {"epochs": 1, "rationale_candidates": 8, "question_candidates": 8},
    "student": {"lr": 1e-3, "epochs": 1, "max_new_tokens": 64}, "dapt": {"lr": 1e-3, "epochs": 1},
    "memorization": {
        "draws": 3, "strings": 32, "bits": 32, "irrelevant": 32, "growth_strings": 16, "growth_bits": [16, 64, 256],
        "growth_draws": 2, "network_strings": [8, 32], "network_draws": 2, "steps": 20, "batch": 32,
    },
    "reaugkd": REAUGKD_WORLD | {"train": 640, "dev": 64, "teacher_epochs": 2, "epochs": 1, "projection_steps": 20},
    "rag": {"pooling": "mean", "tau": 4.0, "passages": 2, "refresh": 4, "lr": 1e-4, "epochs": 1, "questions": 64,
            "contrastive_lr": 1e-3, "contrastive_epochs": 1, "contrastive_batch": 32},
}  # fmt: skip
EMBEDDED_WORLD: dict[str, Any] = {
    "teacher": {"rationales": 2},
    "reranker": {"lr": 1e-3, "batch": 32, "epochs": 1, "sampled": 8, "tau_1": 2.0, "tau_2": 0.5},
    "student": {"lr": None, "epochs": None, "batch": 64, "max_new_tokens": 64},
    "dapt": {"lr": 1e-3},
    "reaugkd": REAUGKD_WORLD,
    "rag": {"pooling": "mean", "tau": 4.0, "passages": 4, "refresh": 16, "lr": 1e-4, "epochs": 10,
            "contrastive_lr": 1e-3, "contrastive_epochs": 3, "contrastive_batch": 64},
}  # fmt: skip
EMBEDDED_REAL: dict[str, Any] = {
    "seeds": [0], "students": ["random-t5"],
    "reranker": {"model": "minilm", "dim": 384, "questions": 1200, "epochs": 1, "tau_1": 2.0, "tau_2": 2.0},
    "student": {"examples": 640, "epochs": 1, "max_source_tokens": 256, "max_new_tokens": None},
    "rag": {"model": "minilm", "pooling": "mean", "passages": 2, "refresh": 20, "lr": 1e-5, "epochs": 1,
            "questions": 320, "contrastive_questions": 640, "contrastive_lr": 1e-4, "contrastive_epochs": 1,
            "contrastive_batch": 32},
}  # fmt: skip
EMBEDDED_STRATEGYQA: dict[str, Any] = EMBEDDED_REAL | {  # its passages are ten times as long
    "teacher": {"rationales": 2},
    "reranker": EMBEDDED_REAL["reranker"]
    | {"questions": 400, "lr": 2e-5, "tau_1": 4.0, "tau_2": 1.0, "max_tokens": 128},
}
EMBEDDED_OWN = EMBEDDED_WORLD | {  # for one sitting, without a download; a pretrained student has its own values
    "seeds": [0], "students": ["t5-nano-base"], "student": EMBEDDED_WORLD["student"] | {"max_new_tokens": None},
}  # fmt: skip
EMBEDDED_GLUE: dict[str, Any] = {
    "seeds": [0, 1, 2, 3, 4],
    "reaugkd": {
        "teacher": "minilm", "pooling": "mean", "train_words": False, "max_tokens": 96,
        "train": 4000, "teacher_lr": 1e-4, "teacher_epochs": 3, "lr": 5e-4, "epochs": 1,
    },
}  # fmt: skip
LONGER = {n: EMBEDDED_GLUE | {"reaugkd": EMBEDDED_GLUE["reaugkd"] | {"epochs": n}} for n in (2, 3)}  # epochs
EMBEDDED_DATASETS = {  # EMBEDDED_REAL for all others
    **dict.fromkeys(GLUE_TASKS, EMBEDDED_GLUE), "sst2": LONGER[2], "rte": LONGER[3],
    "world": EMBEDDED_WORLD, "own": EMBEDDED_OWN, "strategyqa": EMBEDDED_STRATEGYQA,
}  # fmt: skip
REAL: dict[str, Any] = {  # a pretrained student; a CPU learns from 30 % of the questions, once, in a quarter of an hour
    "seeds": [0], "students": ["smollm2"],
    "teacher": {"rationales": 1},
    "reranker": EMBEDDED_REAL["reranker"] | {"questions": 3600},  # as many rationales as three of 1,200
    "student": {"prompt": "chat", "lr": 3e-4, "epochs": 1, "share": 0.3, "batch": 16, "bf16": True,
                "max_source_tokens": 512, "max_new_tokens": None, "generation_batch": 64},
    "rag": EMBEDDED_REAL["rag"],
}  # fmt: skip
REAL_STRATEGYQA: dict[str, Any] = REAL | {  # its passages are ten times as long
    "reranker": EMBEDDED_STRATEGYQA["reranker"] | {"questions": 800},
    "student": REAL["student"] | {"max_source_tokens": 1024, "batch": 8, "target": "words"},  # "option" is not tried
}
TAUGHT_BY_SMOLLM2 = {"teacher": "smollm2", "student": "minilm", "student_layers": [0, 2, 4], "teacher_epochs": 2}
REAL_DATASETS = {"obqa": REAL, "strategyqa": REAL_STRATEGYQA} | {
    task: values | {"reaugkd": values["reaugkd"] | TAUGHT_BY_SMOLLM2}
    for task, values in EMBEDDED_DATASETS.items() if task in GLUE_TASKS
}  # fmt: skip
GROWING = {"seeds", "methods", "student.share", "reranker.questions"}  # published real results grow with computing time
PAPER: dict[str, Any] = {  # models: KARD, Tables 1 and 2
    "students": ["google/flan-t5-base", "google/flan-t5-large", "google/flan-t5-xl"],
    "retrieval": {"k": 1, "k_training": 1},
    "reranker": {"model": "michiyasunaga/LinkBERT-base", "dim": 768, "lora": True},
    # a cut rationale has no answer: the longest have 400 tokens; the last two fit 3 billion parameters into 80 GB
    "student": {"samples": 5, "max_new_tokens": 512, "gradient_checkpointing": True, "generation_batch": 32},
    "reaugkd": {"teacher": "google-bert/bert-base-uncased", "revision": "86b5e0934494bd15c9632b12f734a8a67f723594"},
    "rag": {"model": "google-bert/bert-base-uncased"},
    "compute": {"processes": None},
}
PAPER_T5: dict[str, Any] = PAPER | {"students": ["google-t5/t5-base", "google-t5/t5-large", "google-t5/t5-3b"]}
PAPER_MEDQA: dict[str, Any] = PAPER | {  # students in order of size; Table 3's ten rationales have Table 1's numbers
    "students": ["google/flan-t5-base", "facebook/opt-350m", "google/flan-t5-large", "facebook/opt-iml-1.3b",
                 "google/flan-t5-xl"],
    "reranker": PAPER["reranker"] | {"model": "michiyasunaga/BioLinkBERT-base"}, "teacher": {"rationales": 10},
}  # fmt: skip
PAPER_DATASETS = {"medqa_usmle_hf": PAPER_MEDQA, "obqa": PAPER_T5, "strategyqa": PAPER_T5}


def preset(scale: str = "embedded", dataset: str = "world", data_dir: str | None = None) -> RunSettings:
    """The settings of one scale for one dataset. Raises SettingsError for an unknown scale, and files for the world.

    A dataset that has no values of the scale "real" gets the embedded ones, and their name.
    """
    if dataset == "world" and data_dir:
        raise SettingsError("data_dir is not read with the dataset world: name your data's dataset, your own with own")
    if scale == "real" and dataset not in REAL_DATASETS:
        scale = "embedded"
    embedded, paper = EMBEDDED_DATASETS.get(dataset, EMBEDDED_REAL), PAPER_DATASETS.get(dataset, PAPER)
    if dataset in PAPER_DATASETS and data_dir is None:  # the Hub has questions alone
        paper = paper | {"knowledge": {"index": "enwiki-paragraphs"}}
    presets = {"smoke": SMOKE, "embedded": embedded, "real": REAL_DATASETS.get(dataset, {}), "paper": paper}
    return validate(RunSettings, {"scale": scale, "dataset": dataset, "data_dir": data_dir} | presets.get(scale, {}))
