"""Learning rate of every kind of pretrained student, from one grid, by loss on held-out training questions.

python benchmarks/real_students.py --data-dir DIR [--dataset obqa] [--rates 1e-4 3e-4 1e-3]

Each kind (what is learnt, with passages or without) is trained once on the same share of the training questions at
every rate; the loss per target token of the questions that were set aside for measuring (split "silver") decides. No
development or test question is read; one JSON line at the end.
"""

import argparse
import tempfile
from itertools import product
from pathlib import Path

import torch
from line import tell
from transformers import DataCollatorForSeq2Seq

from kardlib import REPOSITORY
from kardlib.artifacts.device import multiplies_bf16
from kardlib.artifacts.provenance import provenance
from kardlib.data.prompts import gold_text
from kardlib.kard.experiment import Cell, open_experiment
from kardlib.kard.keys import student_settings
from kardlib.kard.methods import METHODS
from kardlib.kard.pipeline import prepare_all, source_texts, train_students
from kardlib.kard.prepare import Prepared
from kardlib.kard.prompting import fit_sources
from kardlib.kard.rankings import Reading, find_retriever
from kardlib.kard.student import Examples, load_student
from kardlib.models.training import PartTrainer, trainer_arguments

KINDS = ("fine_tuning", "ka_fine_tuning", "reasoning_distillation", "kard_bm25")


def held_out(prepared: Prepared, cell: Cell) -> list[tuple[str, str]]:
    """Source and target of every question that was set aside, its first rationale; read is as in training."""
    experiment, method = prepared.experiment, METHODS[cell.method]
    questions, run = experiment.data.splits["silver"], dict[str, list[tuple[str, float]]]()
    if method.reads_in_training:
        reading = Reading(experiment, "silver", {cell: prepared}, {})
        run = dict(find_retriever(method.reads_in_training).retrieve(reading)[cell])
    read = {q.id: [p for p, _ in run.get(q.id, [])[: experiment.settings.retrieval.k_training]] for q in questions}
    first = {r.question_id: r.text for r in prepared.rationales.written["silver"] if r.number == 0}
    explains = method.learns == "rationale"
    form = student_settings(experiment.settings, cell).form
    targets = [gold_text(q, form, first[q.id] if explains else "") for q in questions]
    return [*zip(source_texts(prepared, cell, "silver", read), targets, strict=True)]


@torch.inference_mode()
def measure_loss(folder: Path, cell: Cell, prepared: Prepared, batch: int = 16) -> float:
    """`-log p` per target token of the questions that were set aside, computed as the Trainer computes it."""
    knobs = student_settings(prepared.experiment.settings, cell)
    model, tokenizer = load_student(str(folder))
    sources, targets = zip(*held_out(prepared, cell), strict=True)
    pairs = zip(fit_sources(sources, tokenizer, knobs, model.config), targets, strict=True)
    whole = knobs.model_copy(update={"max_new_tokens": 1000})
    by_length = sorted(pairs, key=lambda pair: sum(map(len, pair)))
    data = Examples(*zip(*by_length, strict=True), tokenizer, whole, model.config)
    counted = sum(label != -100 for labels in data.labels for label in labels)
    total = 0.0
    with tempfile.TemporaryDirectory() as place:
        arguments = trainer_arguments(Path(place), 1.0, batch, 0, 1, len(data), 0)
        trainer = PartTrainer(model, arguments, data_collator=DataCollatorForSeq2Seq(tokenizer, model))
        for start in range(0, len(data), batch):
            inputs = trainer.collate([data[i] for i in range(start, min(start + batch, len(data)))])
            with torch.autocast("cpu", torch.bfloat16, enabled=multiplies_bf16()):
                total += float(trainer.compute_loss(model, dict(inputs), num_items_in_batch=torch.tensor(1)))
    return total / counted


def main() -> None:
    """Train the grid, print every loss, and all of it as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", required=True)
    parser.add_argument("--dataset", default="obqa")
    parser.add_argument("--methods", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--epochs", nargs="+", type=int, default=[1])
    parser.add_argument("--share", type=float, default=0.08)
    parser.add_argument("--out", type=Path, default=REPOSITORY / "benchmarks" / "results" / "real_students.json")
    options = parser.parse_args()
    changes = {"student.share": options.share, "teacher.rationales": 1}
    experiment = open_experiment("real", options.dataset, options.data_dir, changes)
    rows = []
    for method in options.methods:
        grid = [(("student.lr", lr), ("student.epochs", n)) for n, lr in product(options.epochs, options.rates)]
        asked = prepare_all(experiment, [Cell(method, experiment.student, 0, knobs) for knobs in grid])
        for cell, folder in train_students(experiment, asked).items():
            (_, lr), (_, epochs) = cell.knobs
            rows.append({"method": method, "lr": lr, "epochs": epochs, "loss": measure_loss(folder, cell, asked[cell])})
            print(" ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in rows[-1].values()), flush=True)
    chosen = {m: min((r for r in rows if r["method"] == m), key=lambda r: r["loss"]) for m in options.methods}
    line = {"benchmark": "real_students", "dataset": options.dataset, **changes, "rows": rows, "chosen": chosen}
    tell(line | {"made by": provenance()}, options.out)


if __name__ == "__main__":
    main()
