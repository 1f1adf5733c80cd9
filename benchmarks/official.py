"""The released code's way beside this library's: reranking, writing and training, in CPU time of one process.

    python benchmarks/official.py [--dataset obqa --data-dir DIR] [--model minilm] [--student smollm2] [--out FILE]

The released code's way is rebuilt from what is said of it, not copied: every text padded to 512 tokens, one question at
a time, every passage encoded anew for every question, float32, five samples of up to 1,024 tokens, activations computed
again in training. Where that leaves something open, the cheaper reading is taken: a question's candidates are encoded
at once, and a step's texts are. The library's way is the library's functions. BM25 has a file of its own, `bm25.py`.

Both get the same weights, texts and threads. First they must give the same rankings, greedy texts and loss, else the
run ends with an error. The released code's way is timed with torch's own kernels and with those that the library
replaces them by; on fewer questions, for what one costs does not depend on the others. A ratio of 1 or more says that
the library is as fast or faster. The last line is JSON. `limit_share`: operations a second over those of a product of
large matrices on the same core. `slowest`: shares of the time that the library takes, by torch's operators and outside.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import torch
from line import tell
from torch.nn.functional import cross_entropy, normalize
from torch.nn.utils.rnn import pad_sequence
from torch.profiler import ProfilerActivity, profile

from kardlib.artifacts.device import multiply_with_onednn
from kardlib.artifacts.provenance import provenance
from kardlib.data.answers import answer_end
from kardlib.data.files import LETTERS, Question, read_kard, read_recorded_rationales
from kardlib.data.prompts import source_text, target_text
from kardlib.data.records import read_losses
from kardlib.data.world import build_world
from kardlib.kard.answering import write
from kardlib.kard.prompting import fit_sources, limit_targets
from kardlib.kard.student import Example, Examples, load_student, train_student
from kardlib.kard.teacher import symbolic_teacher
from kardlib.models.catalogue import Shape, read_shape
from kardlib.models.costs import forward_flops, training_flops
from kardlib.models.encoders import LateInteraction, load_reranker, rank
from kardlib.models.training import CHECKPOINTING
from kardlib.presets import preset
from kardlib.retrieval.lucene import Lucene
from kardlib.retrieval.runs import Run
from kardlib.settings import RunSettings, StudentSettings

PADDED, WRITTEN, SAMPLES, TOP_K, TOP_P = 512, 1024, 5, 50, 0.95  # the released code's
CANDIDATES = 100  # of a question: kappa*
AT_A_TIME = 8  # examples whose gradients are added up to a step's, which bounds the memory of padded texts
CLOSE = 2e-4  # scores that may be ranked either way: `rank` rounds to four decimals
AIMS = {"world": {"reranking": 150.0}, "obqa": {"reranking": 150.0}, "strategyqa": {"reranking": 25.0}}
AIM = {"generation": 20.0, "training": 40.0, "bm25": 1.8}
PARTS = ("reranking", "generation", "training")


class Work(NamedTuple):
    """What there is to do: the same for both ways."""

    settings: RunSettings
    questions: Mapping[str, str]  # of the test set
    run: Run  # their candidates
    passages: Mapping[str, str]
    asked: Sequence[str]  # sources of the test questions
    examples: Sequence[Example]  # to train on


# The released code's way


@torch.inference_mode()
def rank_padded(reranker: LateInteraction, question: str, candidates: Mapping[str, str]) -> list[tuple[str, float]]:
    """A question's candidates, best first."""

    def encode(texts: Sequence[str]) -> tuple[torch.Tensor, torch.Tensor]:
        read = reranker.tokenizer(
            texts, padding="max_length", truncation=True, max_length=PADDED, return_tensors="pt"
        )  # fmt: skip
        hidden = reranker.encoder(input_ids=read.input_ids, attention_mask=read.attention_mask).last_hidden_state
        return normalize(reranker.linear(hidden), dim=2), read.attention_mask.bool()

    query, query_mask = encode([question])  # (1, 512, dim)
    vectors, mask = encode(list(candidates.values()))  # (C, 512, dim)
    best = (query @ vectors.transpose(1, 2)).masked_fill(~mask[:, None, :], -torch.inf).max(2).values  # (C, 512)
    scores = best.masked_fill(~query_mask, 0.0).sum(1).tolist()
    return sorted(zip(candidates, scores, strict=True), key=lambda scored: (-scored[1], scored[0]))


@torch.inference_mode()
def write_padded(model: Any, tokenizer: Any, source: str, samples: int) -> list[str]:
    """What a student writes on one question, whole."""
    read = tokenizer([source], padding="max_length", truncation=True, max_length=PADDED, return_tensors="pt")
    drawn: dict[str, Any] = {"do_sample": False}
    if samples > 1:
        drawn = {"do_sample": True, "top_k": TOP_K, "top_p": TOP_P, "num_return_sequences": samples}
    written = model.generate(
        input_ids=read.input_ids, attention_mask=read.attention_mask, max_new_tokens=WRITTEN, **drawn
    )
    start = 0 if model.config.is_encoder_decoder else PADDED
    return list(tokenizer.batch_decode(written[:, start:], skip_special_tokens=True))


def train_padded(model: Any, tokenizer: Any, batch: Sequence[dict[str, list[int]]], optimizer: Any) -> float:
    """The loss of one step, whose texts are token ids, after which the weights have moved."""
    getattr(model, f"{CHECKPOINTING}_enable")({"use_reentrant": False})
    model.train()

    def pad(ids: Sequence[list[int]], value: int) -> torch.Tensor:
        padded = pad_sequence([torch.tensor(i) for i in ids], batch_first=True, padding_value=value)
        missing = max(0, PADDED - padded.shape[1])  # a causal LM reads source and target as one text
        return torch.nn.functional.pad(padded, (0, missing), value=value)  # (B, 512)

    counted, total = sum(i >= 0 for example in batch for i in example["labels"]), 0.0
    for first in range(0, len(batch), AT_A_TIME):
        part = batch[first : first + AT_A_TIME]
        inputs = pad([example["input_ids"] for example in part], tokenizer.pad_token_id)
        mask, labels = (pad([example[name] for example in part], value) for name, value in MASKED.items())
        logits = model(
            input_ids=inputs, attention_mask=mask, use_cache=False,
            **({"labels": labels} if model.config.is_encoder_decoder else {}),
        ).logits  # fmt: skip
        if not model.config.is_encoder_decoder:
            logits, labels = logits[:, :-1], labels[:, 1:]
        loss = cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum") / counted
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return total


MASKED = {"attention_mask": 0, "labels": -100}  # what padding is, by the name of the input


# Inputs


def prepare(options: argparse.Namespace, lucene: Lucene, index: Path) -> Work:
    """Index the passages, search for the test questions and for the rationales, and make the texts of both."""
    settings = preset("embedded", options.dataset, options.data_dir)
    settings = settings.override({"student.max_source_tokens": PADDED})
    count = options.batch * max(options.batches, options.steps)
    if options.dataset == "world":
        world = build_world(settings.world)
        data, train = world.dataset(), world.splits["train"][:count]
        teacher = symbolic_teacher(world, settings.teacher.flawed, settings.teacher.seed)
        rationales = {r.question_id: r.text for r in teacher(train, 1)}
    else:
        data = read_kard(options.data_dir, options.dataset)
        train = data.splits["train"][:count]
        recorded = read_recorded_rationales(
            Path(options.data_dir, "kard", options.dataset, "rationales_train.jsonl.gz")
        )
        rationales = {q.id: recorded[i][0] for i, q in enumerate(train) if recorded.get(i)}
    passages = {p.id: p.text for p in data.passages}
    lucene.build(index, data.passages)
    test = data.splits["test"][: options.questions]
    run = lucene.search(index, {q.id: q.prompt for q in test}, CANDIDATES)
    found = lucene.search(index, rationales, settings.retrieval.k_training)

    def source(question: Question, ranked: Sequence[tuple[str, float]], k: int) -> str:
        return source_text(question, [passages[p] for p, _ in ranked[:k]])

    k, k_training = settings.retrieval.k, settings.retrieval.k_training
    asked = [source(q, run[q.id], k) for q in test]
    learnt = [q for q in train if q.id in rationales]
    examples = [(source(q, found[q.id], k_training), target_text(rationales[q.id], LETTERS[q.answer])) for q in learnt]
    return Work(settings, {q.id: q.prompt for q in test}, run, passages, asked, examples)


def load_asked(work: Work, options: argparse.Namespace) -> tuple[Any, Any, StudentSettings, list[str]]:
    """The student, its tokenizer, the settings that the library trains and asks it with, and what it is asked."""
    model, tokenizer = load_student(options.student)
    settings = work.settings.student.of(options.student, "rationale", reads=True)
    settings = limit_targets([target for _, target in work.examples], tokenizer, settings, model.config)
    settings = settings.model_copy(update={"batch": options.batch, "warmup": 0})
    return model, tokenizer, settings, fit_sources(work.asked, tokenizer, settings, model.config, say=False)


# Checks and clocks


def check(same: bool, what: str) -> None:
    if not same:
        raise SystemExit(f"the two ways do not give the same {what}, so that no time of them can be compared")


def same_ranking(ranked: Sequence[tuple[str, float]], others: Sequence[tuple[str, float]]) -> bool:
    """Whether both have the same passages in the same order, but for those whose scores are as good as equal."""
    score = dict(others)
    return len(ranked) == len(others) and all(
        p in score and max(abs(score[p] - at), abs(own - at)) < CLOSE
        for (p, own), (_, at) in zip(ranked, others, strict=True)
    )


def seconds_of(work: Callable[[], Any]) -> float:
    """CPU seconds of this process."""
    began = time.process_time()
    work()
    return time.process_time() - began


def cpu_seconds() -> float:
    """CPU seconds of this process and of the Lucene process that it holds."""
    times = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(t.user + t.system for t in times)


def measure_limit(size: int = 2048, repeats: int = 5, dtype: torch.dtype = torch.float32) -> float:
    """GFLOP a second of CPU time of products of large matrices with the kernels that torch has now."""
    a, b = torch.randn(2, size, size, dtype=dtype)
    a @ b  # what is compiled once is not counted
    return 2 * size**3 * repeats / seconds_of(lambda: [a @ b for _ in range(repeats)]) / 1e9


def slowest(work: Callable[[], Any], count: int = 4) -> list[str]:
    """The operators of torch that take most of the time, with their shares of it, and what is outside of them all."""
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        work()
        took = time.perf_counter() - began
    spent = {event.key: event.self_cpu_time_total / 1e6 / took for event in profiled.key_averages()}
    longest = sorted(spent, key=lambda operator: -spent[operator])[:count]
    rest = max(0.0, 1 - sum(spent.values()))
    return [*(f"{operator} {100 * spent[operator]:.0f} %" for operator in longest), f"Python {100 * rest:.0f} %"]


# The parts: each returns the released code's CPU seconds, or the library's and what else there is to say


class Part:
    """One kind of work. `official` gives the CPU seconds of the released code's way for one piece, `library` ours."""

    def __init__(self, work: Work, options: argparse.Namespace):
        self.work, self.options = work, options

    def official(self) -> float:
        raise NotImplementedError

    def library(self) -> tuple[float, float, dict[str, Any]]:
        """CPU seconds and operations for one piece of work, and what was done."""
        raise NotImplementedError

    def piece(self) -> Any:
        """A little of the library's work, to see what it spends its time on."""
        raise NotImplementedError


class Reranking(Part):
    """A test set's candidates, by question."""

    def __init__(self, work: Work, options: argparse.Namespace):
        super().__init__(work, options)
        settings = work.settings.reranker.model_copy(update={"model": options.model, "max_tokens": PADDED})
        self.reranker = load_reranker(settings)
        self.few = list(work.questions)[: options.asked]

    def rank_alone(self, question: str) -> list[tuple[str, float]]:
        texts = {p: self.work.passages[p] for p, _ in self.work.run[question]}
        return rank_padded(self.reranker, self.work.questions[question], texts)

    def rank_all(self, questions: Sequence[str]) -> Run:
        run = {q: self.work.run[q] for q in questions}
        return rank(self.reranker, self.work.questions, run, self.work.passages)

    def official(self) -> float:
        return seconds_of(lambda: [self.rank_alone(q) for q in self.few]) / len(self.few)

    def piece(self) -> Run:
        return self.rank_all(list(self.work.questions)[:50])

    def library(self) -> tuple[float, float, dict[str, Any]]:
        ours = self.rank_all(self.few)
        same = all(same_ranking(ours[q], self.rank_alone(q)) for q in self.few)
        check(same, f"ranking of {CANDIDATES} candidates")
        questions = list(self.work.questions)
        seconds = seconds_of(lambda: self.rank_all(questions))
        names = {p for q in questions for p, _ in self.work.run[q]}
        read = self.reranker.tokenize({q: self.work.questions[q] for q in questions})
        texts = self.reranker.tokenize({p: self.work.passages[p] for p in sorted(names)})
        encoder = self.reranker.encoder
        shape = read_shape(encoder.config.to_dict(), encoder.num_parameters())
        compared = sum(len(read[q]) * len(texts[p]) for q in questions for p, _ in self.work.run[q])
        operations = sum(forward_flops(shape, len(ids), 0) for ids in (*read.values(), *texts.values()))
        operations += 2 * self.reranker.linear.out_features * compared
        done = {"questions": len(questions), "passages": len(names), "model": self.options.model,
                "tokens_of_a_passage": round(sum(map(len, texts.values())) / len(texts), 1)}  # fmt: skip
        return seconds / len(questions), operations / len(questions), done


class OfStudent(Part):
    """What a student does."""

    def __init__(self, work: Work, options: argparse.Namespace):
        super().__init__(work, options)
        self.model, self.tokenizer, self.settings, self.fitted = load_asked(work, options)

    def shape(self) -> Shape:
        return read_shape(self.model.config.to_dict(), self.model.num_parameters())


class Generation(OfStudent):
    """Five samples for each test question."""

    def write(self, sources: Sequence[str], **changes: Any) -> list[list[str]]:
        settings = self.settings.model_copy(update=changes)
        return write(self.model, self.tokenizer, sources, settings, 0)

    def official(self) -> float:
        few = self.fitted[: self.options.asked]
        torch.manual_seed(0)
        return seconds_of(lambda: [write_padded(self.model, self.tokenizer, s, SAMPLES) for s in few]) / len(few)

    def piece(self) -> Any:
        return self.write(self.fitted[:100], samples=SAMPLES)

    def library(self) -> tuple[float, float, dict[str, Any]]:
        few = self.fitted[: self.options.asked]
        whole = [write_padded(self.model, self.tokenizer, source, 1)[0] for source in few]
        ours = [texts[0] for texts in self.write(few, samples=1, max_new_tokens=WRITTEN)]
        check(ours == [text[: answer_end(text)] for text in whole], "greedy texts")
        sources, texts = self.fitted[: self.options.written], []
        seconds = seconds_of(lambda: texts.extend(self.write(sources, samples=SAMPLES)))
        read = sum(map(len, self.tokenizer(sources).input_ids))
        written = sum(len(ids) for samples in texts for ids in self.tokenizer(samples).input_ids)
        operations = forward_flops(self.shape(), read, written)
        done = {"questions": len(sources), "samples": SAMPLES, "model": self.options.student,
                "tokens_of_a_text": round(written / SAMPLES / len(sources), 1)}  # fmt: skip
        return seconds / len(sources), operations / len(sources), done


class Training(OfStudent):
    """Steps on questions with passages and the teacher's rationales, by example."""

    def __init__(self, work: Work, options: argparse.Namespace):
        super().__init__(work, options)
        sources = fit_sources(
            [s for s, _ in work.examples], self.tokenizer, self.settings, self.model.config, say=False
        )
        targets = [target for _, target in work.examples]
        self.examples = list(zip(sources, targets, strict=True))
        self.data = Examples(sources, targets, self.tokenizer, self.settings, self.model.config)

    def train_alone(self, steps: int, lr: float) -> tuple[float, float]:
        """CPU seconds of so many steps of the released code's way with fresh weights, and the loss of the last."""
        model, batch = load_student(self.options.student)[0], self.options.batch
        optimizer, seconds, loss = torch.optim.AdamW(model.parameters(), lr=lr), 0.0, 0.0
        for first in range(0, steps * batch, batch):
            examples = [self.data[i] for i in range(first, min(first + batch, len(self.data)))]
            began = time.process_time()
            loss = train_padded(model, self.tokenizer, examples, optimizer)
            seconds += time.process_time() - began
        return seconds, loss

    def train(self, examples: Sequence[Example], **changes: Any) -> float:
        """The last loss that the library prints, of the mean of ten steps."""
        settings = self.settings.model_copy(update=changes)
        with tempfile.TemporaryDirectory() as place:
            train_student(examples, settings, 0, Path(place))
            return [0.0, *read_losses(Path(place)).values()][-1]

    def official(self) -> float:
        return self.train_alone(self.options.batches, 1e-4)[0] / (self.options.batch * self.options.batches)

    def piece(self) -> Any:
        return self.train(self.examples, steps=2 + self.options.steps)

    def library(self) -> tuple[float, float, dict[str, Any]]:
        batch, steps = self.options.batch, self.options.steps
        still = self.train(self.examples[:batch], steps=10, lr=1e-30)  # ten times the same batch and weights
        loss = self.train_alone(1, 1e-30)[1]
        check(abs(loss - still) < 1e-4, f"loss of a batch ({loss:.5f} and {still:.5f})")
        short = seconds_of(lambda: self.train(self.examples, steps=2))  # what loading and saving take
        long = seconds_of(lambda: self.train(self.examples, steps=2 + steps))
        read = sum(map(len, self.data.inputs)) / len(self.data)
        written = sum(i >= 0 for labels in self.data.labels for i in labels) / len(self.data)
        read -= 0 if self.model.config.is_encoder_decoder else written
        done = {"steps": steps, "batch": batch, "model": self.options.student, "loss": round(still, 5),
                "tokens_of_a_source": round(read, 1), "tokens_of_a_target": round(written, 1)}  # fmt: skip
        return (long - short) / (batch * steps), training_flops(self.shape(), read, written), done


KINDS = {"reranking": Reranking, "generation": Generation, "training": Training}


def main(options: argparse.Namespace) -> dict[str, Any]:
    """All parts that are asked for, by name."""
    torch.set_num_threads(1)
    load, parts, aims = os.getloadavg()[0], {}, AIM | AIMS[options.dataset]
    with tempfile.TemporaryDirectory() as place, Lucene(preset().knowledge) as lucene:
        work = prepare(options, lucene, Path(place) / "index")
    kinds = {name: KINDS[name](work, options) for name in PARTS if name in options.parts}
    limits = {"torch": measure_limit()}
    released = {name: kind.official() for name, kind in kinds.items()}  # before torch's kernels are replaced
    limits["library"] = measure_limit() if multiply_with_onednn() else limits["torch"]
    for name, kind in kinds.items():
        seconds, operations, done = kind.library()
        same_kernels = kind.official()
        parts[name] = {
            **done, "official_seconds": released[name], "library_seconds": seconds,
            "ratio": round(released[name] / seconds, 1), "ratio_same_kernels": round(same_kernels / seconds, 1),
            "aim": aims[name], "limit_share": round(operations / seconds / limits["library"] / 1e9, 3),
            "slowest": slowest(kind.piece),
        }  # fmt: skip
        print(f"{name}: {parts[name]}", flush=True)
    return {
        "benchmark": "official", "dataset": options.dataset, "provenance": provenance(), "cores": psutil.cpu_count(),
        "threads": torch.get_num_threads(), "load": [round(l, 1) for l in (load, os.getloadavg()[0])],
        "limit_gigaflops": {name: round(rate, 1) for name, rate in limits.items()}, "parts": parts,
    }  # fmt: skip


def add_inputs(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dataset", default="world", choices=AIMS)
    parser.add_argument("--data-dir", help="folder with kard/ and kb/, for obqa and strategyqa")
    parser.add_argument("--model", help="of the reranker; without it bert-nano for the world, else minilm")
    parser.add_argument("--student", help="without it t5-nano-base for the world, else nothing is written or learnt")
    parser.add_argument("--questions", type=int, help="of the test set, that are searched for; without it all")
    parser.add_argument("--out", type=Path, help="write the JSON there too")


def fill_models(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Set the models that are not named; nano students know no words of real questions."""
    world = options.dataset == "world"
    if not world and not options.data_dir:
        parser.error(f"{options.dataset} is read from files: say where they are with --data-dir")
    options.model = options.model or ("bert-nano" if world else "minilm")
    options.student = options.student or ("t5-nano-base" if world else None)


def read_options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_inputs(parser)
    parser.add_argument("--parts", nargs="+", choices=PARTS, help="these alone")
    parser.add_argument("--written", type=int, default=300, help="questions that the library answers")
    parser.add_argument("--asked", type=int, default=6, help="questions of the released code's way")
    parser.add_argument("--batch", type=int, default=32, help="examples of a step, as in the paper")
    parser.add_argument("--batches", type=int, default=2, help="steps of the released code's way")
    parser.add_argument("--steps", type=int, default=20, help="the library's")
    options = parser.parse_args()
    fill_models(parser, options)
    options.parts = options.parts or (PARTS if options.student else PARTS[:1])
    if options.student is None and {"generation", "training"} & {*options.parts}:
        parser.error("say with --student who writes and learns on real questions")
    return options


if __name__ == "__main__":
    options = read_options()
    tell(main(options), options.out)
