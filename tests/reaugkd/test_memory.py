"""ReAugKD's memory: search against plain numpy, mixing against plain loops, refusals in one sentence."""

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from kardlib.errors import DataError
from kardlib.reaugkd.memory import (
    CANDIDATE_GRID,
    EF_SEARCH,
    TARGET_RECALL,
    KnowledgeBase,
    KnowledgeBaseError,
    Mixing,
    Outputs,
    choose_candidates,
    choose_mixing,
    compress,
    find_prototypes,
    load_knowledge_base,
    mix,
    neighbour_prediction,
    predict,
    read_outputs,
    save_knowledge_base,
    write_outputs,
)
from kardlib.retrieval.dense import build_index, one_thread
from kardlib.settings import ReAugKDSettings

KNOBS = ReAugKDSettings()


def unit(rng: np.random.Generator, n: int, dim: int = 16) -> np.ndarray:
    """Points around eight centres, as embeddings of a few classes are."""
    x = rng.normal(size=(8, dim))[rng.integers(8, size=n)] + 0.6 * rng.normal(size=(n, dim))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def entries():
    rng = np.random.default_rng(0)
    keys = unit(rng, 2000)
    gold = (keys[:, 0] > 0).astype(np.int64) + (keys[:, 1] > 0.2)
    return keys, softmax(4 * np.eye(3)[gold] + rng.normal(size=(2000, 3)), axis=1).astype(np.float32), gold


@pytest.fixture(scope="module")
def base(entries):
    return KnowledgeBase(build_index(entries[0]), entries[1])


def test_exact_search_is_the_plain_one(entries):
    queries = unit(np.random.default_rng(1), 20)
    similarities, found = KnowledgeBase(build_index(entries[0], "exact"), entries[1]).search(queries, 7)
    plain = np.argsort(-queries @ entries[0].T, axis=1, kind="stable")[:, :7]
    assert (found == plain).all()
    assert similarities == pytest.approx(np.take_along_axis(queries @ entries[0].T, plain, 1), abs=1e-6)


def test_hnsw_finds_most_of_the_nearest_and_is_the_same_every_time(entries, base):
    queries = unit(np.random.default_rng(2), 200)
    exact = KnowledgeBase(build_index(entries[0], "exact"), entries[1]).search(queries, 16)[1]
    found = base.search(queries, 16)[1]
    recall = np.mean([len({*a} & {*b}) / 16 for a, b in zip(found, exact, strict=True)])
    assert recall >= 0.95
    again = KnowledgeBase(build_index(entries[0]), entries[1])
    assert (again.search(queries, 16)[1] == found).all()
    assert len(set(base.search(queries[:1], 3 * EF_SEARCH)[1][0])) == 3 * EF_SEARCH  # it looks further when asked


def test_a_graph_gets_the_fewest_candidates_that_find_enough(entries, base):
    exact, queries = KnowledgeBase(build_index(entries[0], "exact"), entries[1]), unit(np.random.default_rng(5), 300)
    nearest = exact.search(queries, 16)[1]

    def recall(candidates: int) -> float:
        found = base.search(queries, 16, candidates)[1]
        return float(np.mean([len({*a} & {*b}) / 16 for a, b in zip(found, nearest, strict=True)]))

    chosen = choose_candidates(base, queries, 16)
    assert recall(chosen) >= TARGET_RECALL > recall(CANDIDATE_GRID[0])
    assert recall(CANDIDATE_GRID[CANDIDATE_GRID.index(chosen) - 1]) < TARGET_RECALL
    assert choose_candidates(exact, queries, 16) is None
    student = Outputs(queries, np.zeros((300, 3), np.float32))
    mixing = choose_mixing(base, [student], np.zeros(300, np.int64), KNOBS)
    assert mixing.candidates == choose_candidates(base, queries, mixing.k)


@given(seed=st.integers(0, 10**6), tau=st.floats(0.01, 10), beta=st.floats(0, 1))
@settings(max_examples=25)
def test_retrieval_and_mixing_are_the_plain_loop(seed, tau, beta):
    rng = np.random.default_rng(seed)
    similarities, soft, own = rng.uniform(-1, 1, (4, 5)), rng.dirichlet([1] * 3, (4, 5)), rng.dirichlet([1] * 3, 4)
    mixed = mix(own, neighbour_prediction(similarities, soft, tau), beta)
    for i in range(4):
        top = max(similarities[i])
        weights = [np.exp((s - top) / tau) for s in similarities[i]]
        for c in range(3):
            looked_up = sum(w * y for w, y in zip(weights, soft[i, :, c], strict=True)) / sum(weights)
            assert mixed[i, c] == pytest.approx(beta * own[i, c] + (1 - beta) * looked_up, abs=1e-12)


def test_predictions_are_distributions_and_beta_spans_the_two_ends(entries, base):
    student = Outputs(3 * unit(np.random.default_rng(3), 30), np.random.default_rng(4).normal(size=(30, 3)))
    alone, both, looked_up = (predict(base, [student], Mixing(4, 0.1, beta))[0] for beta in (1.0, 0.5, 0.0))
    assert alone == pytest.approx(student.probabilities)
    assert both == pytest.approx((alone + looked_up) / 2)
    assert both.sum(1) == pytest.approx(1, abs=1e-5)
    nearest = base.search(student.unit, 1)[1][:, 0]
    assert predict(base, [student], Mixing(1, 0.1, 0.0))[0] == pytest.approx(entries[1][nearest])


def test_embeddings_are_looked_up_at_length_one():
    given = Outputs(np.array([[3, 4], [0, 0.5], [0, 0]], np.float32), np.zeros((3, 2), np.float32))
    assert given.unit == pytest.approx(np.array([[0.6, 0.8], [0, 1], [0, 0]]))  # of nothing there is no direction


def test_an_entry_that_was_not_found_weighs_nothing():
    soft = np.random.default_rng(0).dirichlet([1] * 3, (1, 3))
    similarities = np.array([[0.9, 0.5, -3.4e38]], dtype=np.float32)
    assert neighbour_prediction(similarities, soft, 0.1) == pytest.approx(
        neighbour_prediction(similarities[:, :2], soft[:, :2], 0.1)
    )


def test_the_grid_is_searched_for_accuracy(entries, base):
    """A student that is always wrong gets the smallest share, one that is always right the largest."""
    queries, gold = entries[0][:200], entries[1][:200].argmax(1)
    right = Outputs(queries, 9 * np.eye(3, dtype=np.float32)[gold])
    wrong = Outputs(queries, 9 * np.eye(3, dtype=np.float32)[(gold + 1) % 3])
    assert choose_mixing(base, [wrong], gold, KNOBS).beta == min(KNOBS.betas)
    assert choose_mixing(base, [right], gold, KNOBS).beta == max(KNOBS.betas)
    assert choose_mixing(base, [wrong], gold, KNOBS, betas=(0.0,))[0::2] == (1, 0.0)
    alone = choose_mixing(base, [right], gold, KNOBS, betas=(1.0,))  # all are as good, and the grid's first is taken
    assert alone[:2] == (KNOBS.ks[0], KNOBS.taus[0])


# Sizes


def test_kinds_of_compression(entries):
    full, half, pq = (compress(*entries, kind) for kind in ("full", "half", "pq"))
    queries = unit(np.random.default_rng(5), 50)
    numbers, codebooks = (
        2000 * (16 + 3),
        2 * 256 * 8 * 4,
    )  # keys and soft labels; eight numbers a byte, in single precision
    sizes = (4 * numbers, 2 * numbers, 2000 * 2 + codebooks + 2000 * 3 * 2)
    for base, size in zip((full, half, pq), sizes, strict=True):
        assert size < base.bytes < size + 100
    assert (half.search(queries, 1)[1] == full.search(queries, 1)[1]).mean() > 0.95
    sizes = [compress(*entries, "prototypes", kept).index.ntotal for kept in (0.01, 0.05, 0.2, 1)]
    assert sizes[-1] == 2000 and sizes == sorted(sizes)
    assert sizes[0] == sum(max(1, round(n / 100)) for n in np.bincount(entries[2]))
    assert len(find_prototypes(*entries, 1e-9)[0]) == 3  # never an empty class
    with pytest.raises(ValueError, match="'prototype' is no kind of compression: take one of full, half, pq, proto"):
        compress(*entries, "prototype", 0.1)


def test_prototypes_are_centres_with_their_members_mean_soft_label(entries):
    keys, soft, gold = entries
    centres, means = find_prototypes(keys, soft, gold, 1e-9)  # one for each class
    for label in range(3):
        centre = keys[gold == label].mean(0)
        assert centres[label] == pytest.approx(centre / np.linalg.norm(centre), abs=1e-4)
        assert means[label] == pytest.approx(soft[gold == label].mean(0), abs=1e-5)
    assert np.linalg.norm(find_prototypes(keys, soft, gold, 0.05)[0], axis=1) == pytest.approx(1, abs=1e-5)


# Files and refusals


def test_saved_and_loaded_predictions_are_identical(entries, base, tmp_path):
    save_knowledge_base(tmp_path, base, entries[0], "teacher-1")
    loaded, keys = load_knowledge_base(tmp_path, "teacher-1", 16)
    student = Outputs(unit(np.random.default_rng(6), 40), np.random.default_rng(7).normal(size=(40, 3)))
    mixing = Mixing(16, 0.1, 0.5)
    assert (predict(loaded, [student], mixing) == predict(base, [student], mixing)).all()
    assert (keys == entries[0]).all()
    write_outputs(tmp_path, {"dev": student})
    assert all((a == b).all() for a, b in zip(read_outputs(tmp_path)["dev"], student, strict=True))


def test_a_knowledge_base_of_another_teacher_or_size_is_refused(entries, base, tmp_path):
    save_knowledge_base(tmp_path, base, entries[0], "teacher-1")
    with pytest.raises(KnowledgeBaseError, match=r"a teacher with the weights teacher-1, not teacher-2: build it"):
        load_knowledge_base(tmp_path, "teacher-2", 16)
    with pytest.raises(KnowledgeBaseError, match=r"embeddings of size 16, the student's have size 8: build it for"):
        load_knowledge_base(tmp_path, "teacher-1", 8)
    with pytest.raises(KnowledgeBaseError, match="holds no knowledge base"):
        load_knowledge_base(tmp_path / "nowhere", "teacher-1", 16)


def test_what_cannot_be_searched(entries, base):
    with pytest.raises(KnowledgeBaseError, match=r"k = 2001 neighbours cannot be found among 2000 entries: lower k"):
        base.search(entries[0][:1], 2001)
    with pytest.raises(KnowledgeBaseError, match="embeddings of size 16, the student's have size 5"):
        base.search(np.ones((1, 5), np.float32), 1)
    small = KnowledgeBase(build_index(entries[0][:3]), entries[1][:3])
    assert {*small.search(entries[0][:1], 3)[1][0]} == {0, 1, 2}  # as many as there are
    student = Outputs(entries[0][:9], np.zeros((9, 3), np.float32))
    assert choose_mixing(small, [student], entries[2][:9], KNOBS).k == 1  # larger ones of the grid are left out
    with pytest.raises(KnowledgeBaseError, match="k = 4 neighbours cannot be found among 3 entries"):
        choose_mixing(small, [student], entries[2][:9], KNOBS.model_copy(update={"ks": (4, 64)}))


def test_faiss_has_one_thread_and_gives_the_others_back(entries, base):
    """They are torch's too where both share one OpenMP."""
    before = faiss.omp_get_max_threads()
    try:
        faiss.omp_set_num_threads(3)
        with one_thread():
            assert faiss.omp_get_max_threads() == 1
        build_index(entries[0][:100])
        compress(*(part[:400] for part in entries), "pq")
        choose_candidates(base, entries[0][:10], 3)
        with pytest.raises(KnowledgeBaseError):
            base.search(entries[0], 3000)
        with pytest.raises(DataError, match="product quantisation needs 256 entries, not 100"):
            compress(*(part[:100] for part in entries), "pq")
        assert faiss.omp_get_max_threads() == 3
        first, again = (faiss.serialize_index(build_index(entries[0])) for _ in range(2))
        assert (first == again).all()
    finally:
        faiss.omp_set_num_threads(before)
