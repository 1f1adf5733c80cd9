"""ReAugKD: equations against plain loops in float64 and by gradcheck, layers, training, and the whole way."""

import hashlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch.autograd import gradcheck
from torch.nn.functional import normalize
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
)

from kardlib.artifacts.device import Device
from kardlib.artifacts.store import Store
from kardlib.errors import DataError, StoreError
from kardlib.models.encoders import load_encoder
from kardlib.models.nano import build_tokenizer
from kardlib.presets import preset
from kardlib.reaugkd import distillation as module
from kardlib.reaugkd.distillation import (
    Classifier,
    build_student,
    build_teacher,
    contrastive_loss,
    distill_student,
    keep_layers,
    label_objective,
    relational_loss,
    rkd_loss,
    run_classifier,
    soft_label_loss,
    student_objective,
    train_classifier,
    train_projection,
)
from kardlib.reaugkd.experiment import (
    Distilled,
    ReAugKDExperiment,
    build_memory,
    choose,
    confidence,
    correct,
    correct_with,
    distance,
    distill_students,
    gather,
    open_reaugkd,
    open_settings,
    outputs,
    probabilities,
    train_teacher,
    training_spec,
)
from kardlib.reaugkd.memory import KnowledgeBaseError, Outputs, compress
from kardlib.reaugkd.methods import METHODS, Method, register_method
from kardlib.reaugkd.tasks import Example
from kardlib.registry import REGISTRY
from kardlib.settings import ReAugKDSettings
from tests.folders import ROOT

SIGNS = "insomnia fever rash thirst tremor jaundice nausea migraine".split()


@pytest.fixture(scope="module", autouse=True)
def fp32():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "pick_device", lambda: Device("cpu", False, "the tests"))
        yield


def load_classifier(folder: Path) -> Classifier:
    """What `Classifier.save` wrote."""
    encoder, tokenizer = load_encoder(str(folder))
    head, facts = load_file(folder / module.HEAD), json.loads((folder / module.HEAD_FACTS).read_text())
    classifier = Classifier(encoder, tokenizer, len(head["weight"]), facts["pooling"])
    classifier.head.load_state_dict(head)
    return classifier.eval()


def build_encoder(kind: str, **sizes: int) -> PreTrainedModel:
    """A small random one of four layers."""
    torch.manual_seed(0)
    sizes = {"max_position_embeddings": 64} | sizes
    if kind == "distilbert":
        return DistilBertModel(DistilBertConfig(dim=32, n_layers=4, n_heads=2, hidden_dim=64, **sizes))
    sizes |= {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    return (
        RobertaModel(RobertaConfig(type_vocab_size=1, **sizes)) if kind == "roberta" else BertModel(BertConfig(**sizes))
    )


@pytest.fixture(scope="module")
def encoders(tmp_path_factory) -> dict[str, Path]:
    """Folders by kind, as any `transformers` checkpoint is, with the nano models' tokenizer."""
    tokenizer, folders = build_tokenizer(), {}
    for kind in ("bert", "distilbert", "roberta"):
        folders[kind] = tmp_path_factory.mktemp(kind)
        sizes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.pad_token_id}
        build_encoder(kind, **sizes).save_pretrained(folders[kind])
        tokenizer.save_pretrained(folders[kind])
    return folders


@pytest.fixture(scope="module")
def bert(encoders) -> Path:
    """The paper's path: every second layer of the teacher."""
    return encoders["bert"]


@pytest.fixture(scope="module")
def knobs(bert) -> ReAugKDSettings:
    return ReAugKDSettings(teacher=str(bert), max_tokens=32)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


# Equations


def test_contrastive_loss_is_its_formula():
    z, labels, tau = normalize(draw(7, 4), dim=1), torch.tensor([0, 1, 0, 2, 1, 0, 3]), 0.3
    total, anchors = 0.0, 0
    for i in range(7):
        others = [a for a in range(7) if a != i]
        positives = [a for a in others if labels[a] == labels[i]]
        if positives:
            denominator = sum(torch.exp(z[i] @ z[a] / tau) for a in others)
            total -= sum(torch.log(torch.exp(z[i] @ z[p] / tau) / denominator) for p in positives) / len(positives)
            anchors += 1
    assert anchors == 5  # two labels stand alone
    assert contrastive_loss(z, labels, tau).item() == pytest.approx(float(total) / anchors, abs=1e-12)
    with pytest.raises(DataError, match="two examples with the same label"):
        contrastive_loss(z[:2], torch.tensor([0, 1]), tau)


def test_soft_label_loss_is_its_formula():
    student, teacher, T = draw(3, 5), draw(3, 5, seed=1), 2.5
    p, q = (torch.exp(x / T) / torch.exp(x / T).sum(1, keepdim=True) for x in (student, teacher))
    plain = sum(float(q[i, c] * torch.log(q[i, c] / p[i, c])) for i in range(3) for c in range(5)) / 3
    assert soft_label_loss(student, teacher, T).item() == pytest.approx(T**2 * plain, abs=1e-12)
    assert soft_label_loss(teacher, teacher, T).item() == pytest.approx(0, abs=1e-12)


def test_relational_loss_is_its_formula_and_zero_where_the_student_stands_as_its_teacher():
    s, z, tau = normalize(draw(5, 4), dim=1), normalize(draw(5, 4, seed=1), dim=1), 0.2
    total = 0.0
    for i in range(5):
        others = [j for j in range(5) if j != i]
        q = np.array([np.exp(float(z[i] @ z[j]) / tau) for j in others])
        p = np.array([np.exp(float(s[i] @ z[j]) / tau) for j in others])
        q, p = q / q.sum(), p / p.sum()
        total += (q * np.log(q / p)).sum()
    assert relational_loss(s, z, tau).item() == pytest.approx(total / 5, abs=1e-12)
    assert relational_loss(z, z, tau).item() == pytest.approx(0, abs=1e-12)


def test_rkd_loss_is_its_formula():
    s, t = draw(4, 3), draw(4, 6, seed=1)

    def huber(a: float, b: float) -> float:
        return 0.5 * (a - b) ** 2 if abs(a - b) < 1 else abs(a - b) - 0.5

    def distance(x, i, j):
        mean = sum(float((x[a] - x[b]).norm()) for a in range(4) for b in range(4)) / 12
        return float((x[i] - x[j]).norm()) / mean

    def angle(x, i, j, k):
        a, b = x[i] - x[j], x[k] - x[j]
        return float(a @ b / (a.norm() * b.norm())) if i != j != k else 0.0

    every = range(4)
    distances = np.mean([huber(distance(s, i, j), distance(t, i, j)) for i in every for j in every])
    angles = np.mean([huber(angle(s, i, j, k), angle(t, i, j, k)) for i in every for j in every for k in every])
    assert rkd_loss(s, t).item() == pytest.approx(distances + 2 * angles, abs=1e-12)
    for scale in (3, 0.01):
        assert rkd_loss(scale * t, t).item() == pytest.approx(0, abs=1e-12)  # neither turns nor scale matter


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: contrastive_loss(normalize(x, dim=1), torch.tensor([0, 1, 0, 1]), 0.5),
        lambda x: soft_label_loss(x, draw(4, 3, seed=1), 2.0),
        lambda x: relational_loss(normalize(x, dim=1), normalize(draw(4, 3, seed=1), dim=1), 0.5),
        lambda x: rkd_loss(x, draw(4, 5, seed=1)),
    ],
    ids=["contrastive", "soft", "relational", "rkd"],
)
def test_gradients(loss):
    assert gradcheck(loss, draw(4, 3).requires_grad_())


@pytest.mark.parametrize("count", [1, 3])  # one text alone: what is left over at an epoch's end
def test_rkd_of_equal_embeddings_has_a_loss_and_a_gradient(count):
    x = torch.ones(count, 2, dtype=torch.float64, requires_grad=True)
    loss = rkd_loss(x, draw(count, 4))
    loss.backward()
    assert torch.isfinite(loss) and torch.isfinite(x.grad).all()


def test_a_method_sums_its_losses(knobs):
    rng = np.random.default_rng(0)
    teacher = Outputs(*(rng.normal(size=(9, n)).astype(np.float32) for n in (6, 3)))
    keys = teacher.unit
    labels, number = torch.arange(9) % 3, torch.tensor([4, 0, 8, 5])
    s, logits = torch.from_numpy(rng.normal(size=(4, 6))).float(), torch.from_numpy(rng.normal(size=(4, 3))).float()
    t_logits, t, z = (torch.from_numpy(x)[number] for x in (teacher.logits, teacher.embeddings, keys))
    parts = {
        "label": torch.nn.functional.cross_entropy(logits, labels[number]),
        "soft": 3 * soft_label_loss(logits, t_logits, knobs.temperature),
        "relational": 5 * relational_loss(normalize(s, dim=1), z, knobs.tau),
        "rkd": 7 * rkd_loss(s, t),
    }
    weighted = knobs.model_copy(update={"soft_weight": 3.0, "relational_weight": 5.0, "rkd_weight": 7.0})
    for losses in {m.losses for m in METHODS.values() if m.losses} | {("soft", "relational"), ("rkd",)}:
        loss = student_objective(losses, labels, teacher, keys, weighted)(s, logits, number)
        assert loss.item() == pytest.approx(sum(float(parts[l]) for l in losses), rel=1e-5)


# Encoders


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_the_student_is_every_second_layer_of_the_teacher_before_fine_tuning(kind, knobs, encoders):
    weights = load_file(encoders[kind] / "model.safetensors")
    knobs = knobs.model_copy(update={"teacher": str(encoders[kind])})
    student = build_student(knobs, 2, 0).encoder.state_dict()
    assert {n.split(".")[2] for n in student if ".layer." in n} == {"0", "1"}
    for name, weight in student.items():
        source = name.replace("layer.1.", "layer.2.")
        assert torch.equal(weight, weights[source]), name
    assert build_teacher(knobs, 2, 0).encoder.config.num_hidden_layers == 4
    own = knobs.model_copy(update={"student": "bert-nano", "student_layers": (1,)})
    assert build_student(own, 2, 0).encoder.config.hidden_size == 128


@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_layers_that_are_not_there(kind):
    model = keep_layers(build_encoder(kind), [0, 2])
    assert model(torch.full((1, 3), 5)).last_hidden_state.shape == (1, 3, 32)
    for layers in ([2], [], [-1]):
        with pytest.raises(DataError, match=r"cannot be kept of 2: give numbers from 0 to 1"):
            keep_layers(model, layers)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("kind", ["bert", "distilbert", "roberta"])
def test_outputs_do_not_depend_on_the_batch_and_survive_saving(kind, pooling, knobs, encoders, tmp_path):
    classifier = build_teacher(knobs.model_copy(update={"pooling": pooling, "teacher": str(encoders[kind])}), 3, 0)
    examples = [Example("A baker has fever.", "He has a rash." * (1 + i % 3), 0) for i in range(6)]
    examples.append(Example("insomnia " * 90, "fever", 1))  # longer than the encoder's positions
    together = run_classifier(classifier, examples, 64)
    alone = [run_classifier(classifier, [example], 64) for example in examples]
    for name in ("embeddings", "logits"):
        assert getattr(together, name) == pytest.approx(np.concatenate([getattr(o, name) for o in alone]), abs=1e-5)
    classifier.save(tmp_path)
    loaded = run_classifier(load_classifier(tmp_path), examples, 64)
    assert all((a == b).all() for a, b in zip(loaded, together, strict=True))


def test_a_causal_teacher_reads_a_pair_as_two_lines():
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_alone = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, []))
    bytes_alone.pre_tokenizer, bytes_alone.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bytes_alone, pad_token=alphabet[0], padding_side="right")
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    torch.manual_seed(0)
    teacher = Classifier(LlamaModel(LlamaConfig(vocab_size=256, **shape)), tokenizer, 2, "mean")
    pairs = [Example("a b", "c", 0), Example("a", "b c", 0), Example("much longer than these", "two", 1)]
    assert [tokenizer.decode(t["input_ids"]) for t in teacher.tokenize(pairs[:2], 64)] == ["a b\nc", "a\nb c"]
    assert tokenizer.decode(teacher.tokenize([Example("a b", "", 0)], 64)[0]["input_ids"]) == "a b"
    together = run_classifier(teacher, pairs, 64).embeddings
    alone = [run_classifier(teacher, [pair], 64).embeddings[0] for pair in pairs]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert not np.allclose(alone[0], alone[1], atol=1e-3)
    teacher.encoder.config.architectures = ["LlamaForCausalLM"]  # as of a checkpoint
    with pytest.raises(DataError, match=r"first token has read nothing of the text: set reaugkd.pooling to mean"):
        Classifier(teacher.encoder, tokenizer, 2, "cls")


def test_mean_pooling_leaves_padding_out(knobs):
    classifier: Classifier = build_teacher(knobs.model_copy(update={"pooling": "mean"}), 2, 0).eval()
    inputs = classifier.tokenizer(["fever", "fever and rash"], padding=True, return_tensors="pt")
    hidden = classifier.encoder(**inputs).last_hidden_state
    lengths = inputs.attention_mask.sum(1)
    expected = torch.stack([hidden[i, : lengths[i]].mean(0) for i in range(2)])
    assert torch.allclose(classifier(**inputs)[0], expected, atol=1e-6)


# Training

SAID = [Example(f"A baker has {SIGNS[i % 8]}.", " ".join(SIGNS[: i % 7]), i % 2) for i in range(160)]
KILLED = """
import os, signal, sys
from pathlib import Path
from tests.reaugkd.test_experiment import Device, ReAugKDSettings, label_objective, module, train
module.pick_device = lambda: Device("cpu", False, "the tests")

def until_step_120(objective):
    def counted(embeddings, logits, number):
        counted.steps += 1
        if counted.steps == 120:
            os.kill(os.getpid(), signal.SIGKILL)
        return objective(embeddings, logits, number)
    counted.steps = 0
    return counted

train(ReAugKDSettings.model_validate_json(sys.argv[1]), Path(sys.argv[2]), until_step_120)
"""


def train(knobs: ReAugKDSettings, folder: Path, wrap=lambda objective: objective, lr: float = 1e-3) -> dict:
    """Three epochs of 80 steps, with dropout: the weights at the end."""
    classifier = build_teacher(knobs, 2, 0)
    objective = wrap(label_objective(torch.tensor([e.label for e in SAID])))
    train_classifier(classifier, SAID, objective, knobs, lr, 3, 0, folder)
    return classifier.state_dict()


def test_a_training_killed_in_its_second_epoch_ends_with_the_weights_of_one_that_was_not(knobs, tmp_path):
    knobs, root = knobs.model_copy(update={"batch": 2}), ROOT
    command = [sys.executable, "-c", KILLED, knobs.model_dump_json(), str(tmp_path / "killed")]
    threads = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run(command, cwd=root, env=os.environ | threads, check=False, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    checkpoints = tmp_path / "killed" / "checkpoints"
    assert [folder.name for folder in checkpoints.glob("checkpoint-*")] == ["checkpoint-100"]
    (checkpoints / "checkpoint-119").mkdir()  # half written: without the state that comes last
    whole, again = train(knobs, tmp_path / "whole"), train(knobs, tmp_path / "killed")
    assert all(torch.equal(whole[name], again[name]) for name in whole)
    with pytest.raises(StoreError, match=r"killed was begun with lr = 0\.001 and cannot go on with 0\.002"):
        train(knobs, tmp_path / "killed", lr=2e-3)


def test_a_training_of_one_step_trains(knobs, tmp_path):
    """Its warm-up is rounded down, so that its one step does not have a learning rate of 0."""
    knobs = knobs.model_copy(update={"batch": 160})
    classifier = build_teacher(knobs, 2, 0)
    before = {name: weight.clone() for name, weight in classifier.state_dict().items()}
    labels = torch.tensor([e.label for e in SAID])
    train_classifier(classifier, SAID, label_objective(labels), knobs, 1e-3, 1, 0, tmp_path)
    assert not torch.equal(classifier.state_dict()["head.weight"], before["head.weight"])


@pytest.mark.parametrize("rise", [1, -1])
def test_a_loss_that_did_not_fall_is_said(rise, knobs, tmp_path, capsys):
    steps = itertools.count(100, rise)

    def objective(embeddings: torch.Tensor, logits: torch.Tensor, number: torch.Tensor) -> torch.Tensor:
        return 0 * logits.sum() + next(steps)

    train_classifier(build_student(knobs, 2, 0), SAID, objective, knobs, 1e-3, 8, 0, tmp_path)
    assert (f"{tmp_path.name}: the loss did not fall" in capsys.readouterr().err) == (rise > 0)


@pytest.mark.parametrize(("teacher", "student"), [("roberta", "distilbert"), ("distilbert", "roberta")])
def test_an_encoder_of_one_kind_learns_from_one_of_another(teacher, student, knobs, encoders, tmp_path):
    knobs = knobs.model_copy(update={"teacher": str(encoders[teacher]), "student": str(encoders[student])})
    labels = torch.tensor([e.label for e in SAID])
    outputs = run_classifier(build_teacher(knobs, 2, 0), SAID, 32)
    keys = train_projection(outputs.embeddings, labels.numpy(), 32, 2, knobs, 0)(outputs.embeddings)
    losses: list[float] = []

    def objective(*batch: torch.Tensor) -> torch.Tensor:
        loss = student_objective(METHODS["reaugkd"].losses, labels, outputs, keys, knobs)(*batch)
        losses.append(loss.item())
        return loss

    train_classifier(build_student(knobs, 2, 0), SAID, objective, knobs, 1e-3, 4, 0, tmp_path)
    assert np.mean(losses[-5:]) < np.mean(losses[:5])


# Projection


def test_the_projection_brings_a_class_together_and_changes_nothing_else(knobs):
    rng = np.random.default_rng(0)
    labels = np.arange(120) % 4
    embeddings = (rng.normal(size=(4, 24))[labels] + 2 * rng.normal(size=(120, 24))).astype(np.float32)
    before = embeddings.copy()

    def closeness(steps: int) -> float:
        settings = knobs.model_copy(update={"projection_steps": steps, "projection_lr": 1e-2})
        keys = train_projection(embeddings, labels, 8, 4, settings, 0)(embeddings)
        assert keys.shape == (120, 8) and np.linalg.norm(keys, axis=1) == pytest.approx(1, abs=1e-5)
        same = labels[:, None] == labels
        return (keys @ keys.T)[same].mean() - (keys @ keys.T)[~same].mean()

    assert closeness(100) > closeness(0) + 0.2
    assert (embeddings == before).all()
    with pytest.raises(DataError, match=r"1 of 5 labels have no training example.*empty class"):
        train_projection(embeddings, labels, 8, 5, knobs, 0)


# The whole way


def write_task(folder: Path) -> Path:
    """RTE-shaped: whether the second text names the sign of the first."""
    lines = ["index\tsentence1\tsentence2\tlabel"]
    for i in range(96):
        sign, other = SIGNS[i % 8], SIGNS[(i + 1 + i % 5) % 8]
        label = "not_entailment" if i % 2 else "entailment"
        lines.append(f"{i}\tA baker has {sign}.\tHe has {sign if i % 2 else other}.\t{label}")
    (folder / "RTE").mkdir()
    for file, kept in (("train", lines), ("dev", lines[:25])):
        (folder / "RTE" / f"{file}.tsv").write_text("\n".join(kept) + "\n")
    return folder


def distill(experiment: ReAugKDExperiment) -> Distilled:
    """The steps of notebook 13."""
    teacher = train_teacher(experiment)
    memory = build_memory(experiment, teacher)
    return gather(experiment, teacher, memory, distill_students(experiment, teacher, memory))


@pytest.fixture(scope="module")
def distilled(bert, tmp_path_factory) -> Distilled:
    """The paper's preset with a small random BERT in BERT-base's place."""
    folder = write_task(tmp_path_factory.mktemp("data"))
    settings = preset("paper", "rte", str(folder)).override(
        {"reaugkd.teacher": str(bert), "reaugkd.revision": None, "seeds": [0, 1], "reaugkd.epochs": 1,
         "reaugkd.lr": 1e-3, "reaugkd.teacher_lr": 1e-3, "reaugkd.projection_steps": 5}
    )  # fmt: skip
    return distill(open_settings(settings, Store(tmp_path_factory.mktemp("store"))))


def test_the_mixing_is_chosen_without_what_is_reported(distilled):
    unseen = replace(distilled, students={key: {"dev": said["dev"]} for key, said in distilled.students.items()})
    base = distilled.memory.base
    assert choose(unseen, base) == distilled.mixing["reaugkd"]
    assert choose(unseen, base, "neighbours", (0.0,)) == distilled.mixing["neighbours"]


def hashes(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def test_the_papers_path_with_a_small_bert(distilled):
    experiment = distilled.experiment
    teacher = train_teacher(experiment)
    before = hashes(teacher)
    memory = build_memory(experiment, teacher)
    assert memory.keys.shape == (87, 32) and memory.base.index.ntotal == 87
    assert hashes(teacher) == before  # projection and knowledge base leave the teacher as it was
    assert experiment.layers == 2
    assert (
        len(distill_students(experiment, teacher, memory)) == 8
    )  # four sets of losses, two seeds: rows share students
    for method in METHODS:
        p = probabilities(distilled, method)
        assert p.shape == (1 if method == "reaugkd_teacher" else 2, 24, 2)
        assert p.sum(2) == pytest.approx(1, abs=1e-5)
        assert correct(distilled, method).shape == (2, 24)
    assert distilled.mixing["neighbours"].beta == 0


def test_a_row_of_ones_own_is_mixed_as_it_asks(distilled):
    register_method(Method("rkd_mixed", "RKD, mixed", ("label", "soft", "rkd"), "mixed"))
    try:
        again = distill(distilled.experiment)
        assert again.mixing == distilled.mixing | {"rkd_mixed": again.mixing["rkd_mixed"]}
        assert correct(again, "rkd_mixed").shape == correct(again, "reaugkd").shape
    finally:
        del METHODS["rkd_mixed"], REGISTRY["rkd_mixed"]


def test_opening_trains_nothing_and_a_second_run_is_identical(distilled):
    store = distilled.experiment.store
    made = {p: p.stat().st_mtime_ns for p in store.root.glob("*/artifact.json")}
    again = distill(open_settings(distilled.experiment.settings, store))
    for method in METHODS:
        assert (probabilities(again, method) == probabilities(distilled, method)).all()
    assert {p: p.stat().st_mtime_ns for p in store.root.glob("*/artifact.json")} == made
    other = open_settings(distilled.experiment.settings.override({"reaugkd.epochs": 2}), store)
    assert other.dim == 32 and {p: p.stat().st_mtime_ns for p in store.root.glob("*/artifact.json")} == made


def test_a_knowledge_base_of_a_teacher_trained_again_is_refused(distilled, tmp_path):
    """Its settings, and so its artifact's name, are the same; one of its weights is not."""
    experiment = distilled.experiment
    teacher = train_teacher(experiment)
    again = tmp_path / teacher.name
    shutil.copytree(teacher, again)
    weights = load_file(again / "model.safetensors")
    weights["embeddings.LayerNorm.bias"][0] += 1e-3
    save_file(weights, again / "model.safetensors", {"format": "pt"})
    losses, knobs = METHODS["reaugkd"].losses, experiment.settings.reaugkd
    with pytest.raises(KnowledgeBaseError, match=r"by a teacher with the weights \w{16}, not \w{16}: build it again"):
        distill_student(experiment.task, knobs, again, distilled.memory.folder, losses, 0, tmp_path)


def test_a_saved_student_says_what_its_outputs_say(distilled):
    experiment = distilled.experiment
    students = distill_students(experiment, train_teacher(experiment), distilled.memory)
    folder = students[METHODS["reaugkd"].losses, 0]
    examples, knobs = experiment.task.splits["test"], experiment.settings.reaugkd
    spoken = run_classifier(load_classifier(folder), examples, knobs.max_tokens)
    assert spoken.logits == pytest.approx(outputs(distilled, "reaugkd")[0].logits, abs=1e-5)


def test_past_the_paper(distilled):
    base, gold = distilled.memory.base, distilled.experiment.task.gold("train")
    kinds = (("full", 1), ("prototypes", 0.05))
    whole, small = (compress(distilled.memory.keys, base.soft_labels, gold, *kind) for kind in kinds)
    assert small.index.ntotal < whole.index.ntotal and small.bytes < whole.bytes
    assert correct_with(distilled, whole).shape == (2, 24)
    assert ((distance(distilled) >= 0) & (distance(distilled) <= 2)).all()
    assert confidence(distilled).min() >= 0.5


def test_knobs_name_what_they_change_and_nothing_else(distilled):
    experiment = distilled.experiment
    other = open_settings(experiment.settings.override({"reaugkd.ks": [1]}), experiment.store)
    assert build_memory(other, train_teacher(other)).folder == distilled.memory.folder
    spec, faster = training_spec(experiment, "lr"), experiment.settings.override({"reaugkd.lr": 1})
    assert training_spec(other, "lr") == spec != training_spec(open_settings(faster, experiment.store), "lr")


def test_wrong_settings_are_one_sentence(tmp_path):
    for changes, words in (
        ({"reaugkd.betas": [1.5]}, r"reaugkd\.betas\.0: Input should be less than or equal to 1"),
        ({"reaugkd.ks": [0]}, r"reaugkd\.ks\.0: Input should be greater than or equal to 1"),
        ({"reaugkd.taus": [0]}, r"reaugkd\.taus\.0: Input should be greater than 0"),
        ({"reaugkd.pooling": "max"}, "reaugkd.pooling"),
    ):
        with pytest.raises(ValueError, match=words):
            open_reaugkd("smoke", overrides=changes)
    with pytest.raises(DataError, match=r"no teacher could be loaded from '.*' \(a nano model"):
        build_teacher(ReAugKDSettings(teacher=str(tmp_path)), 2, 0)
