"""Every knob of the suite, validated, in plain names; comments give the papers' symbols.

`preset(scale, dataset)` (`presets.py`) returns the settings of one scale; a notebook changes single knobs with
`settings.override({"retrieval.k": 1})`. A misspelt name or a value out of range is an error before anything runs.
"""

import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from kardlib import is_nano, is_smollm2
from kardlib.errors import suggest
from kardlib.knobs import Batch, Count, Distinct, Group, Lengths, Seed, SettingsError, flatten, is_plain_url, validate

# What a student's settings leave open: learning rate, epochs, and how answers are named (`prompts.answer_text`)
PRETRAINED, SMOLLM2 = (1e-4, 3, "letter"), (1e-4, 3, "option")  # the paper's; SmolLM2 learns no letters: answer_form.py
# By what is learnt, and whether it reads (benchmarks/fair_students.py) or what it reads (writing_or_passages.py)
NANO_TRAINING: dict[tuple[str, bool | str], tuple[float, int, str]] = {
    ("answer", False): (3e-3, 5, "letter"), ("answer", True): (3e-3, 20, "option"),
    ("rationale", False): (3e-3, 20, "letter"), ("rationale", True): (3e-3, 5, "letter"),
    ("answer", "bm25_rationale"): (3e-3, 5, "option"), ("rationale", "bm25_question"): (1e-3, 20, "letter"),
    ("rationale", "reranker"): (3e-3, 10, "letter"),
}  # fmt: skip
GLUE_TASKS = ("cola", "mnli", "mrpc", "qnli", "qqp", "rte", "sst2")  # those that sort texts into classes
Scale = Literal["smoke", "embedded", "real", "paper"]
CHOSEN = ("scale", "dataset", "data_dir")  # choose the preset, so that they are no single settings of it


class WorldSettings(Group):
    """The closed world. How hard it is was chosen on the development world (seed 1), never on the test world."""

    seed: Seed = 0
    edition: Count = Field(0, ge=0)  # above 0: the same questions after the values of all ailments have changed
    ailments: int = Field(60, ge=12, le=800)  # each has a value of its own for every relation
    often: Count = Field(8, ge=1)  # how many times as often training asks about one half of the ailments that it shows
    never: float = Field(1 / 3, ge=0, le=0.5)  # share of the ailments that it never shows
    wordings: int = Field(2, ge=1, le=3)  # passages that state the same fact
    cases: Count = Field(300, ge=0)  # distractors: patients with other ailments
    notes: Count = Field(2050, ge=0)  # distractors: towns, jobs, food
    train: Count = Field(1000, ge=1)
    dev: Count = Field(300, ge=1)
    test: Count = Field(900, ge=1)
    two_hop: float = Field(0.75, ge=0, le=1)  # share of two-hop questions
    yes_no: float = Field(0.2, ge=0, le=1)  # share of yes/no questions
    everyday: float = Field(0.4, ge=0, le=1)  # chance that a question uses the everyday word for a sign


class KnowledgeSettings(Group):
    """BM25 through Lucene."""

    k1: float = Field(0.9, ge=0)
    b: float = Field(0.4, ge=0, le=1)
    threads: int = Field(2, ge=1)
    index: str | None = None  # a prebuilt index's name or a Lucene index's folder; None: build one from the passages


class TeacherSettings(Group):
    """Rationales: how many per question are used (`l`), which are kept, and the chat server that writes them, if any.

    The server's key is no setting: the environment variable that `key_variable` names holds it.
    """

    rationales: int = Field(3, ge=1, le=20)  # l
    flawed: float = Field(0.15, ge=0, le=1)  # share of flawed ones that the symbolic teacher writes
    correct_only: bool = True  # the filter: drop rationales that conclude another option than the gold one
    verifier: str | None = None  # an LM, named as a student is, that must pick the gold option from the rationale
    verifier_prompt: Literal["zero_shot", "five_shot"] = "zero_shot"  # five_shot: five examples, the likeliest letter
    seed: Seed = 0
    base_url: str | None = None  # of an OpenAI-compatible server, e.g. "http://localhost:8000/v1"; None: no server
    model: str | None = None  # as the server calls it
    key_variable: str = Field("OPENAI_API_KEY", pattern="^[A-Z][A-Z0-9_]*$")
    temperature: float = Field(0.7, gt=0, le=2)  # above 0: `l` rationales of a question should differ
    max_tokens: int = Field(512, ge=1)  # of one rationale
    limit_name: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"  # some servers know only the second one
    concurrency: int = Field(8, ge=1, le=256)  # requests at once
    timeout: float = Field(120, gt=0)  # seconds to wait for an answer
    retries: int = Field(6, ge=0, le=20)  # of one request; the last of 6 comes about 20 s after the first try
    price_in: float = Field(0, ge=0)  # dollars for a million tokens read
    price_out: float = Field(0, ge=0)  # dollars for a million tokens written
    spending_limit: float | None = Field(None, gt=0)  # dollars, for all that the model has written into this store

    @model_validator(mode="after")
    def _server_is_complete(self) -> Self:
        if self.base_url is not None:
            if not is_plain_url(self.base_url):
                raise ValueError(
                    "teacher.base_url must be a plain address such as http://localhost:8000/v1, without user, "
                    "password or key: a key belongs in the environment"
                )
            if not self.model:
                raise ValueError("teacher.model is missing: set it to what the server at teacher.base_url calls it")
        if self.spending_limit and not (self.price_in or self.price_out):
            raise ValueError("teacher.spending_limit needs prices: set teacher.price_in and teacher.price_out")
        return self


class RetrievalSettings(Group):
    """What the student reads."""

    candidates: int = Field(100, ge=1)  # kappa*: candidates that the reranker orders
    k: int = Field(3, ge=1)  # passages given to the student at test
    k_training: int = Field(3, ge=1)  # and in training
    answer_in_query: bool = False  # whether a training rationale's query ends in its gold answer, "Answer: B"

    @model_validator(mode="after")
    def _k_fits(self) -> Self:
        if self.k > self.candidates:
            asked = f"retrieval.k = {self.k} passages cannot be chosen from {self.candidates} candidates (kappa*)"
            raise ValueError(f"{asked}: lower k or raise retrieval.candidates")
        return self


class RerankerSettings(Group):
    """Late interaction trained with the KL objective. Numbers default to the released code's, but `tau_2` and `dim`."""

    model: str = "bert-nano"  # a nano model's name, a folder, or a Hub id
    revision: str | None = None  # pins a Hub id
    dim: int = Field(128, ge=1)  # size of a token's vector; the linear layer starts as the identity where it can
    rationale_candidates: int = Field(32, ge=1)  # kappa_1
    question_candidates: int = Field(32, ge=0)  # kappa_2
    questions: int | None = Field(None, ge=1)  # how many to train on, the first ones; None: all
    sampled: int = Field(4, ge=1)  # per step, of each of the two kinds
    tau_1: float = Field(1.0, gt=0)  # temperature of the target Q
    tau_2: float = Field(1.0, gt=0)  # temperature of the model P; 100 in the released code, for its dot products
    # Switches from the paper to the released code:
    loss: Literal["kl", "cross_entropy"] = "kl"  # cross-entropy: on the best candidate alone
    temperatures: Literal["constant", "released"] = "constant"  # released: of KL, falling from tau to -3 tau
    passage_gradient: Literal[True, "linear"] = True  # linear: passages train the linear layer, not the encoder
    similarity: Literal["cosine", "dot"] = "cosine"  # of two tokens; dot: with a bias, the linear layer starts random
    dropout: float = Field(0.0, ge=0, lt=1)  # of the encoder in training; 0.1 in LinkBERT
    rare_terms: bool = True  # whether terms of one passage alone count in scoring the question's candidates
    lr: float = Field(1e-4, gt=0)
    epochs: int = Field(3, ge=1)
    batch: Batch = Field(16, ge=1)
    warmup: float = Field(0.05, ge=0, lt=1)
    lora: bool = False  # r 16, alpha 32, dropout 0.1 on query and value
    max_tokens: int = Field(512, ge=8)


class StudentSettings(Group):
    """Training and generation. Defaults are the paper's where it states one."""

    model: str = "t5-nano-base"  # a nano model's name, "smollm2", a folder, a Hub id, or "random-t5"
    revision: str | None = None
    lr: float | None = Field(1e-4, gt=0)  # None: what its kind of model and of training takes (`of`)
    epochs: int | None = Field(3, ge=1)  # None: likewise
    batch: Batch = Field(32, ge=1)
    share: float = Field(1.0, gt=0, le=1)  # of the training questions that it learns from, drawn by the seed
    examples: int | None = Field(None, ge=1)  # how many to train on, the first ones; None: all
    steps: int | None = Field(None, ge=1)  # of training, in place of `epochs`
    warmup: float = Field(0.05, ge=0, lt=1)
    lora: bool = False  # train low-rank updates alone: r 16, alpha 32, dropout 0.1 on query and value
    bf16: bool = False  # compute in bfloat16 on a CPU that multiplies it; GPUs that do are not asked
    gradient_checkpointing: bool = False  # compute activations again, not keep them: less memory, a third slower
    max_source_tokens: int = Field(512, ge=8)
    truncation_side: Literal["right", "left"] = "right"  # the end at which a longer source is cut
    max_new_tokens: int | None = Field(160, ge=2)  # None: what its kind of model takes, or as the targets need
    target: Literal["letter", "words", "option"] | None = None  # how answers are named; None: likewise
    prompt: Literal["plain", "chat"] = "plain"  # chat: a source is the user's turn in the model's own chat template
    generation_batch: Batch = Field(100, ge=1)
    samples: int = Field(1, ge=1)  # 1: greedy; more: majority vote over samples
    top_k: int = Field(50, ge=1)
    top_p: float = Field(0.95, gt=0, le=1)

    def of(self, model: str, learns: str = "rationale", reads: bool | str = False) -> Self:
        """The settings of one model: what None leaves open is set to what suits it, what it learns and what it reads.

        Nano models and "random-t5" write what the closed world needs, others what `prompting.limit_targets` allows.
        """
        nano, learns = is_nano(model), learns or "rationale"
        chosen = NANO_TRAINING.get((learns, reads), NANO_TRAINING[learns, bool(reads)])
        lr, epochs, target = chosen if nano else SMOLLM2 if is_smollm2(model) else PRETRAINED
        limit = self.max_new_tokens or (64 if nano else 24 if model == "random-t5" else None)
        changes = {"lr": self.lr or lr, "epochs": self.epochs or epochs, "target": self.target or target}
        return self.model_copy(update={"model": model, "max_new_tokens": limit} | changes)

    @property
    def form(self) -> str:
        """How answers are named (`prompts.answer_text`), by settings that `of` has filled."""
        assert self.target
        return self.target

    def count_steps(self, examples: int) -> int:
        """Of a training by settings that `of` has filled: the steps that are set, else all examples in every epoch."""
        assert self.epochs
        return self.steps or -(-examples // self.batch) * self.epochs

    def count_seen(self, examples: int) -> int:
        """The examples that `count_steps` steps read, repeated ones too: the last batch of an epoch may be short."""
        epochs, rest = divmod(self.count_steps(examples), -(-examples // self.batch))
        return epochs * examples + min(rest * self.batch, examples)

    def of_training(self) -> dict[str, Any]:
        """The settings that a student's weights depend on, besides its examples and its seed."""
        others = {"share", "examples", "gradient_checkpointing", "generation_batch", "samples", "top_k", "top_p"}
        return self.model_dump(exclude=others)

    def of_writing(self) -> dict[str, Any]:
        """The settings that a student's texts depend on, besides its weights and its sources."""
        written = {"max_source_tokens", "truncation_side", "max_new_tokens", "target", "prompt"}
        written |= {"bf16"} if self.bf16 else set()
        written |= {"generation_batch"} if self.samples > 1 else set()  # what is drawn depends on it
        return self.model_dump(include=written | {"samples", "top_k", "top_p"})


class DaptSettings(Group):
    """Domain-adaptive pretraining: the student first learns to restore masked spans of passages."""

    corpus: Literal["own", "neighbour"] = "own"  # the knowledge base itself, or that of a neighbouring world
    masked: float = Field(0.15, gt=0, lt=1)  # share of words
    span: float = Field(3.0, ge=1)  # mean length of a masked span in words
    lr: float = Field(1e-4, gt=0)
    epochs: int = Field(3, ge=1)


class MemorizationSettings(Group):
    """The next-symbol task of KARD's Section 3: the middle of every sweep, and the network of fixed size."""

    seed: Seed = 0
    draws: int = Field(20, ge=2)  # of strings and samples; intervals are over these draws
    strings: int = Field(256, ge=16, le=1024)  # N
    bits: int = Field(64, ge=8, le=1024)  # d
    irrelevant: int = Field(256, ge=0, le=1024)  # R
    eps: float = Field(0.01, gt=0, le=0.25)  # how far from optimal a learner may be
    growth_strings: int = Field(128, ge=2, le=1024)  # N = R where d grows
    growth_bits: Lengths = Field((16, 32, 64, 128, 256, 512, 1024, 2048, 4096), min_length=2)  # d
    growth_draws: int = Field(5, ge=2)
    network_strings: Lengths = Field((16, 64, 256, 512, 1024, 2048), min_length=2)  # N = n = R
    network_bits: int = Field(16, ge=4, le=64)  # d
    network_draws: int = Field(4, ge=2)
    hidden: int = Field(32, ge=1)  # hidden units
    steps: int = Field(800, ge=1)
    batch: Batch = Field(256, ge=1)
    lr: float = Field(0.01, gt=0)

    @model_validator(mode="after")
    def _keys_fit(self) -> Self:
        n, r, eps = self.strings, self.irrelevant, self.eps
        swept = ((n + r, eps / 10), (4 * n + r, eps), (n + 16 * r, eps))  # strings and eps of notebook 01's tasks
        m = math.ceil(max(math.log2(known * (known - 1) / 2) - math.log2(e) for known, e in swept))
        if m > self.bits:
            raise ValueError(
                f"memorization.eps = {eps:g} takes keys of up to {m} bits (Theorem 2's m), and memorization.bits is "
                f"{self.bits}: raise one of them"
            )
        return self


Losses = tuple[Literal["label", "soft", "relational", "rkd"], ...]  # those that a student of ReAugKD's table minimises


class ReAugKDSettings(Group):
    """The second paper. Its values are not public, so defaults are BERT's usual ones on GLUE.

    `ks`, `taus` and `betas` span a grid that is tried on the development split, never on the reported one.
    """

    teacher: str = "bert-nano"  # backbone: a nano model's name, "minilm", a folder, or a Hub id
    revision: str | None = None  # pins a Hub id
    teacher_layers: tuple[int, ...] | None = None  # the backbone's layers that are kept; None: all
    student: str | None = None  # another backbone; None: the teacher's, before its fine-tuning
    student_revision: str | None = None
    student_layers: tuple[int, ...] | None = Field(None, min_length=1)  # None: all of `student`, else every second
    pooling: Literal["cls", "mean"] = "cls"  # of the last layer's vectors, into a text's embedding
    train_words: bool = True  # whether the word vectors are trained too
    train: int | None = Field(None, ge=2)  # how many examples to train on; None: all (of the world: 2,000)
    dev: int = Field(1000, ge=1)  # to choose on: at most a tenth of a task's training examples, of the world others
    max_tokens: int = Field(128, ge=8)
    batch: Batch = Field(32, ge=2)
    warmup: float = Field(0.06, ge=0, lt=1)
    teacher_lr: float = Field(3e-5, gt=0)
    teacher_epochs: int = Field(3, ge=1)
    lr: float = Field(5e-5, gt=0)  # of every student
    epochs: int = Field(3, ge=1)
    temperature: float = Field(2.0, gt=0)  # of the soft labels in distillation
    soft_weight: float = Field(1.0, ge=0)
    relational_weight: float = Field(1.0, ge=0)
    rkd_weight: float = Field(25.0, ge=0)  # of RKD's distances; its angles weigh twice as much
    tau: float = Field(0.1, gt=0)  # tau of the contrastive and of the relational loss
    projection_steps: int = Field(300, ge=0)
    projection_batch: Batch = Field(1024, ge=2)
    projection_lr: float = Field(1e-3, gt=0)
    ks: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Distinct] = Field((1, 4, 16, 64), min_length=1)  # k
    taus: Annotated[tuple[Annotated[float, Field(gt=0)], ...], Distinct] = Field((0.03, 0.1, 0.3), min_length=1)  # tau
    betas: Annotated[tuple[Annotated[float, Field(ge=0, le=1)], ...], Distinct] = Field(
        (0.1, 0.3, 0.5, 0.7, 0.9), min_length=1
    )  # beta


class RagSettings(Group):
    """RAG: a dual encoder trained with the student. Defaults are those of RAG (Lewis et al. 2020) and DPR (Karpukhin
    et al. 2020).
    """

    model: str = "bert-nano"  # where both encoders start: named as the reranker's, or a trained retriever's folder
    revision: str | None = None  # pins a Hub id
    pooling: Literal["cls", "mean"] = "cls"  # of the tokens' vectors, into a text's embedding
    tau: float = Field(1.0, gt=0)  # temperature of p(z | x)
    passages: int = Field(5, ge=1)  # passages z that are marginalised over; the student reads each alone
    refresh: int = Field(200, ge=1)  # steps between two encodings of all passages
    lr: float = Field(1e-5, gt=0)  # of the retriever; the student's is student.lr
    epochs: int = Field(3, ge=1)  # each takes every question once, with one of its rationales
    batch: Batch = Field(16, ge=1)  # questions
    questions: int | None = Field(None, ge=1)  # how many to train on, the first ones; None: all
    warmup: float = Field(0.05, ge=0, lt=1)
    max_tokens: int = Field(256, ge=8)
    # The contrastive training from which the warm variant starts:
    contrastive_lr: float = Field(1e-5, gt=0)
    contrastive_questions: int | None = Field(None, ge=1)
    contrastive_epochs: int = Field(40, ge=1)
    contrastive_batch: Batch = Field(128, ge=2)


class ComputeSettings(Group):
    """Processes that train a student or a reranker together (`launch.py`).

    No result depends on them but in its last bits (dropout apart), so no artifact's name does: `batch` is the batch of
    all processes.
    """

    processes: int | None = Field(1, ge=1)  # None: one for each of this machine's GPUs


class RunSettings(Group):
    """All settings of a run. `seeds` and `students` span the grid of the main table."""

    scale: Scale = "embedded"
    dataset: str = "world"  # "world", "own", of KARD's release "obqa", "strategyqa", "medqa_usmle_hf", or a GLUE task
    data_dir: str | None = None  # with `kard/` and `kb/`, your own files, or `glue/`; None: the world, or the Hub
    seeds: Annotated[tuple[Seed, ...], Distinct] = Field((0, 1, 2), min_length=1)
    students: Annotated[tuple[str, ...], Distinct] = Field(
        ("t5-nano-small", "t5-nano-base", "t5-nano-large"), min_length=1
    )
    methods: Annotated[tuple[str, ...], Distinct] | None = Field(None, min_length=1)  # of the main table; None: all
    answer: Literal["parsed", "last_letter"] = "parsed"  # how an answer is read; last_letter: as released
    test_prompt: Literal["same", "passages_first"] = "same"  # as in training, or another one as in the released code
    world: WorldSettings = WorldSettings()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    teacher: TeacherSettings = TeacherSettings()
    retrieval: RetrievalSettings = RetrievalSettings()
    reranker: RerankerSettings = RerankerSettings()
    student: StudentSettings = StudentSettings()
    dapt: DaptSettings = DaptSettings()
    memorization: MemorizationSettings = MemorizationSettings()
    reaugkd: ReAugKDSettings = ReAugKDSettings()
    rag: RagSettings = RagSettings()
    compute: ComputeSettings = ComputeSettings()

    @model_validator(mode="after")
    def _nano_models_fit(self) -> Self:
        encoders = {"reranker.model": self.reranker.model, "rag.model": self.rag.model,
                    "reaugkd.teacher": self.reaugkd.teacher, "reaugkd.student": self.reaugkd.student}  # fmt: skip
        students = {"student.model": self.student.model, "teacher.verifier": self.teacher.verifier}
        named = [(*item, "bert") for item in encoders.items()] + [(*item, "t5") for item in students.items()]
        for name, model, kind in [*named, *(("students", student, "t5") for student in self.students)]:
            if model and is_nano(model) and not model.startswith(kind):
                raise ValueError(f"{name} = {model} is of another kind: take one whose name begins with {kind}")
        return self

    def override(self, changes: Mapping[str, Any]) -> Self:
        """A copy with single knobs changed: `{"retrieval.k": 1}`, or `{"retrieval": {"k": 1}}`; all others stay.

        Raises SettingsError for a name that does not exist, a value out of range, and what would change nothing.
        """
        values = self.model_dump(mode="json")
        for path, value in flatten(changes):
            if path in CHOSEN:
                option = f"--{path.replace('_', '-')}, in a notebook by the parameter {path}"
                raise SettingsError(f"{path!r} is no single setting: choose it by {option}")
            group, _, name = path.rpartition(".")
            target = values.get(group) if group else values
            if not isinstance(target, dict) or name not in target:
                known = f"; the groups and settings are {', '.join(name for name in values if name not in CHOSEN)}"
                near = suggest(path, dict(flatten(self.model_dump()))) or known
                raise SettingsError(f"there is no setting {path!r}{near}")
            if value == {}:
                raise SettingsError(f"{path}={{}} changes nothing: name one of its settings and a value")
            if path == "student.model":
                raise SettingsError(f'student.model follows students: set students to ["{value}"]')
            if group == "world" and self.dataset != "world":
                raise SettingsError(f"{self.dataset!r} is no closed world that {path} could change: take 'world'")
            target[name] = value
        return validate(type(self), values)

    @property
    def middle(self) -> str:
        """The middle one of the students: ablations that need only one take it."""
        return self.students[len(self.students) // 2]

    @property
    def suffix(self) -> str:
        """What figures of a real dataset add to their name."""
        return "" if self.dataset == "world" else f"_{self.dataset}"
