"""ReAugKD's memory: a knowledge base of the teacher's embeddings and soft labels, retrieval from it, and mixing.

Storing both and finding neighbours with HNSW is sourced. The weights of neighbours and the mixing are
**reconstructed**. The compressed kinds are ours: the authors leave the knowledge base's size to future work.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import faiss
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file
from scipy.special import softmax

from kardlib.artifacts.disk import write_json
from kardlib.errors import DataError
from kardlib.retrieval.dense import EF_SEARCH, build_index, one_thread
from kardlib.settings import ReAugKDSettings

OUTPUTS = "outputs.safetensors"
TARGET_RECALL = 0.96  # share of the nearest neighbours that a search should find, on development data
CANDIDATE_GRID = (16, 24, 32, 40, 48, 56, 64, 80, 96, 128, 160, 192, 256, 384, 512, 1024)  # tried for the target

Array = NDArray[np.float32]


class KnowledgeBaseError(DataError):
    """A knowledge base is missing, or does not fit the teacher, the student or the number of neighbours."""


class Outputs(NamedTuple):
    """A classifier's outputs for a split: embeddings (N, d), not normalised, and logits (N, C)."""

    embeddings: Array
    logits: Array

    @property
    def unit(self) -> Array:
        """Embeddings of length 1, (N, d)."""
        return self.embeddings / np.linalg.norm(self.embeddings, axis=1, keepdims=True).clip(1e-12)

    @property
    def probabilities(self) -> Array:
        """The softmax of the logits, (N, C)."""
        return softmax(self.logits, axis=1)


def write_outputs(folder: Path, outputs: Mapping[str, Outputs]) -> None:
    """Write a classifier's outputs by split."""
    arrays = {f"{split}.{name}": array for split, o in outputs.items() for name, array in o._asdict().items()}
    save_file(arrays, folder / OUTPUTS)


def read_outputs(folder: Path) -> dict[str, Outputs]:
    """The outputs by split that `write_outputs` wrote."""
    arrays = load_file(folder / OUTPUTS)
    splits = sorted({name.split(".")[0] for name in arrays})
    return {s: Outputs(arrays[f"{s}.embeddings"], arrays[f"{s}.logits"]) for s in splits}


# The knowledge base


@dataclass(frozen=True)
class KnowledgeBase:
    """Soft labels `y_j` (N, C), and a FAISS index by inner product over the projected embeddings `z_j` (N, d)."""

    index: Any
    soft_labels: NDArray[np.floating]

    @one_thread()
    def search(self, queries: Array, k: int, candidates: int | None = None) -> tuple[Array, NDArray[np.int64]]:
        """Similarities and numbers of the `k` nearest entries, (Q, k) each, nearest first, for embeddings (Q, d).

        A graph's search keeps so many `candidates` (HNSW's ef); exact search ignores it. Raises KnowledgeBaseError.
        """
        entries = self.index.ntotal
        if k > entries:
            raise KnowledgeBaseError(
                f"k = {k} neighbours cannot be found among {entries} entries: lower k (reaugkd.ks)"
            )
        check_size(self.index.d, queries.shape[1], "the knowledge base")
        if isinstance(self.index, faiss.IndexHNSW):
            self.index.hnsw.efSearch = max(candidates, k) if candidates else max(EF_SEARCH, 2 * k)
        return self.index.search(np.ascontiguousarray(queries, dtype=np.float32), k)

    def look_up(self, queries: Array, k: int, candidates: int | None = None) -> tuple[Array, Array]:
        """Similarities (Q, k) and soft labels (Q, k, C) of the `k` nearest entries; one not found weighs nothing."""
        similarities, entries = self.search(queries, k, candidates)
        return similarities, self.soft_labels[entries].astype(np.float32)

    @property
    def bytes(self) -> int:
        """Size of the index as FAISS writes it, and of the soft labels."""
        return len(faiss.serialize_index(self.index)) + self.soft_labels.nbytes


def check_size(held: int, asked: int, holder: str) -> None:
    """Raise KnowledgeBaseError if embeddings of two sizes should be compared."""
    if held != asked:
        raise KnowledgeBaseError(
            f"{holder} holds embeddings of size {held}, the student's have size {asked}: build it for this student"
        )


@one_thread()
def compress(keys: Array, soft_labels: Array, gold: NDArray[np.int64], kind: str, kept: float = 1) -> KnowledgeBase:
    """A knowledge base with exact search, of one `kind` of compression, from keys (N, d), soft labels (N, C) and gold
    labels (N,).

    "full" keeps single precision, "half" half precision. "pq" product-quantises the keys to one byte for eight numbers.
    "prototypes" keeps a share of every class's entries, `kept`, at least one: the centres of spherical k-means, each
    with the mean soft label of its members (1: the entries themselves). The last two keep the rest in half precision.
    Raises ValueError for any other kind, DataError where there are too few entries to quantise.
    """
    if kind not in (kinds := ("full", "half", "pq", "prototypes")):
        raise ValueError(f"{kind!r} is no kind of compression: take one of {', '.join(kinds)}")
    if kind == "full":
        return KnowledgeBase(build_index(keys, "exact"), soft_labels)
    if kind == "prototypes":
        keys, soft_labels = find_prototypes(keys, soft_labels, gold, kept)
    dim = keys.shape[1]
    index: Any = faiss.IndexScalarQuantizer(dim, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    if kind == "pq":
        if len(keys) < 256:
            raise DataError(f"product quantisation needs 256 entries, not {len(keys)}: raise reaugkd.train")
        index = faiss.IndexPQ(dim, dim // 8, 8, faiss.METRIC_INNER_PRODUCT)
        index.pq.cp.min_points_per_centroid = 1  # no warning if entries are few
    index.train(keys)
    index.add(keys)
    return KnowledgeBase(index, soft_labels.astype(np.float16))


def find_prototypes(keys: Array, soft_labels: Array, gold: NDArray[np.int64], share: float) -> tuple[Array, Array]:
    """Centres of length 1 (P, d) and their members' mean soft labels (P, C): `share` of every class, at least one."""
    centres, means = [], []
    for label in np.unique(gold):
        own, soft = keys[gold == label], soft_labels[gold == label]
        count = max(1, round(share * len(own)))
        if count == len(own):
            centres.append(own)
            means.append(soft)
            continue
        limits = {"min_points_per_centroid": 1, "max_points_per_centroid": len(own)}  # no warning, no subset
        kmeans: Any = faiss.Kmeans(keys.shape[1], count, niter=20, spherical=True, seed=0, **limits)
        kmeans.train(own)
        member = kmeans.index.search(own, 1)[1][:, 0]
        used = np.unique(member)
        centres.append(kmeans.centroids[used])
        means.append(np.stack([soft[member == m].mean(0) for m in used]))
    return np.concatenate(centres), np.concatenate(means)


def save_knowledge_base(folder: Path, base: KnowledgeBase, keys: Array, teacher: str) -> None:
    """Write index, keys (N, d), soft labels, and the hash of the teacher's weights (`catalogue.identify`)."""
    faiss.write_index(base.index, str(folder / "index.faiss"))
    save_file({"keys": keys, "soft_labels": base.soft_labels}, folder / "entries.safetensors")
    write_json(folder / "knowledge_base.json", {"teacher": teacher, "dim": base.index.d, "entries": base.index.ntotal})


def load_knowledge_base(folder: Path, teacher: str, dim: int) -> tuple[KnowledgeBase, Array]:
    """The knowledge base in a folder, and its keys (N, d).

    Raises KnowledgeBaseError if there is none, or its teacher's hash or its embeddings' size is another.
    """
    try:
        facts = json.loads((folder / "knowledge_base.json").read_text("utf-8"))
    except (OSError, ValueError):
        raise KnowledgeBaseError(f"{folder} holds no knowledge base: build it first") from None
    if facts["teacher"] != teacher:
        raise KnowledgeBaseError(
            f"the knowledge base in {folder.name} was built by a teacher with the weights {facts['teacher']}, not "
            f"{teacher}: build it again with this teacher"
        )
    check_size(facts["dim"], dim, f"the knowledge base in {folder.name}")
    arrays = load_file(folder / "entries.safetensors")
    return KnowledgeBase(faiss.read_index(str(folder / "index.faiss")), arrays["soft_labels"]), arrays["keys"]


# Retrieval and mixing


class Mixing(NamedTuple):
    """How a prediction is made of the student's own and its neighbours'."""

    k: int  # neighbours
    tau: float  # temperature of their weights
    beta: float  # share of the student's own prediction
    candidates: int | None = None  # of a graph's search; None: the default


def neighbour_prediction(similarities: Array, soft_labels: Array, tau: float) -> Array:
    """`sum_j w_j y_j`, `w = softmax_j(s . z_j / tau)` (**reconstructed**): (Q, k), (Q, k, C) -> (Q, C)."""
    with np.errstate(over="ignore"):  # by the similarity of an entry that was not found
        scores = similarities / tau
    return np.einsum("qk,qkc->qc", softmax(scores, axis=1), soft_labels)


def mix(own: Array, neighbours: Array, beta: float) -> Array:
    """`p = beta p_student + (1 - beta) sum_j w_j y_j` (**reconstructed**), all (Q, C)."""
    return beta * own + (1 - beta) * neighbours


def predict(base: KnowledgeBase, students: Sequence[Outputs], mixing: Mixing) -> Array:
    """Mixed predictions on a split, (seeds, N, C), of students that differ in their seed."""
    predictions = []
    for student in students:
        found = base.look_up(student.unit, mixing.k, mixing.candidates)
        predictions.append(mix(student.probabilities, neighbour_prediction(*found, mixing.tau), mixing.beta))
    return np.stack(predictions)


def choose_mixing(
    base: KnowledgeBase, students: Sequence[Outputs], gold: NDArray[np.int64], settings: ReAugKDSettings,
    betas: Sequence[float] | None = None,
) -> Mixing:  # fmt: skip
    """The grid's best mixing on a development split, one for all seeds: by accuracy, then by log-likelihood.

    `betas` replaces the grid's. A `k` above the knowledge base's size is left out if the grid has a smaller one. It is
    chosen with the graph's usual search; how many candidates are enough for that `k` is found afterwards.
    """
    ks = [k for k in settings.ks if k <= base.index.ntotal] or [min(settings.ks)]
    found = [base.look_up(s.unit, max(ks)) for s in students]
    own = [s.probabilities for s in students]
    scored = []
    for k in ks:
        for tau in settings.taus:
            neighbours = [neighbour_prediction(sim[:, :k], soft[:, :k], tau) for sim, soft in found]
            for beta in betas or settings.betas:
                p = np.stack([mix(o, n, beta) for o, n in zip(own, neighbours, strict=True)])
                right = (p.argmax(2) == gold).mean()
                likelihood = np.log(p[:, np.arange(len(gold)), gold].clip(1e-9)).mean()
                scored.append((right, likelihood, Mixing(k, tau, beta)))
    best = max(scored, key=lambda entry: entry[:2])[2]
    return best._replace(candidates=choose_candidates(base, np.concatenate([s.unit for s in students]), best.k))


@one_thread()
def choose_candidates(base: KnowledgeBase, queries: Array, k: int) -> int | None:
    """The fewest with which a graph's search reaches `TARGET_RECALL` for queries (Q, d); None if it is exact."""
    if not isinstance(base.index, faiss.IndexHNSW):
        return None
    nearest = faiss.downcast_index(base.index.storage).search(queries, k)[1]
    for candidates in CANDIDATE_GRID:
        found = base.search(queries, k, candidates)[1]
        if measure_recall(found, nearest).mean() >= TARGET_RECALL:
            break
    return candidates


def measure_recall(found: NDArray[np.int64], nearest: NDArray[np.int64]) -> NDArray[np.float64]:
    """Share of the nearest entries (Q, k) that are among the found ones (Q, k): (Q,)."""
    return np.array([len({*a} & {*b}) / len(b) for a, b in zip(found, nearest, strict=True)])
