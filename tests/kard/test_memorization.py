"""The next-symbol task against brute force on tiny sizes: every string, every training sample, every test point."""

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kardlib.kard.memorization import (
    Draw,
    Task,
    count_votes,
    cut,
    draw_task,
    find,
    first_bits,
    key_bits,
    least_error,
    read,
    recall,
    recall_lossy,
    remember,
    retrieve,
    shelve,
    train_networks,
)
from kardlib.presets import preset

SMOKE = preset("smoke").memorization


def every_draw(task):
    """Each with the same probability."""
    for bits in itertools.product((-1, 1), repeat=(task.strings + task.irrelevant) * task.bits):
        strings = np.array(bits, dtype=np.int8).reshape(-1, task.bits)
        for samples in itertools.product(range(task.strings * task.bits), repeat=task.samples):
            picks, lengths = np.divmod(samples, task.bits)
            yield Draw(strings, picks, lengths + 1, task.irrelevant)


def least_possible_error(task, visible, knowledge_base=False):
    """Error of the exact posterior: for all that a learner can see, the bit that comes next more often."""
    counts = Counter()
    for draw in every_draw(task):
        samples = zip(draw.picks, draw.lengths, strict=True)
        seen = tuple(((j,) if visible else ()) + tuple(draw.strings[j, :k]) for j, k in samples)
        base = tuple(sorted(map(tuple, draw.strings))) if knowledge_base else ()
        for j, i in itertools.product(range(task.strings), range(task.bits)):
            sight = seen, base, (j,) if visible else (), tuple(draw.strings[j, :i])
            counts[sight, draw.strings[j, i]] += 1
    return sum(min(counts[s, 1], counts[s, -1]) for s in {s for s, _ in counts}) / counts.total()


def mean_over_draws(task, error):
    return np.mean([error(draw) for draw in every_draw(task)], axis=0)


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 2, 2), (2, 3, 2)])
@pytest.mark.parametrize("visible", [True, False])
def test_the_optimal_learner_is_optimal(sizes, visible):
    task = Task(*sizes)
    ours = mean_over_draws(task, lambda draw: recall(draw, *remember(draw, visible), visible))
    assert ours == pytest.approx(least_possible_error(task, visible))


def test_with_many_samples_the_hidden_learner_is_near_the_posterior():
    task = Task(strings=2, bits=2, samples=4)
    ours = mean_over_draws(task, lambda draw: recall(draw, *remember(draw, False), False))
    best = least_possible_error(task, visible=False)
    assert best <= ours < best + 0.02


@pytest.mark.parametrize("sizes", [(2, 2, 1, 1), (1, 2, 1, 2), (2, 2, 2, 1)])
def test_readers_against_the_posterior(sizes):
    task = Task(*sizes)
    hidden = mean_over_draws(task, lambda draw: read(draw, [task.bits], visible=False)[0])
    assert hidden == pytest.approx(least_possible_error(task, False, knowledge_base=True))
    visible = mean_over_draws(task, lambda draw: read(draw, [task.bits], prefix=True)[0])
    best = least_possible_error(task, True, knowledge_base=True)  # also knows whose string it cannot be
    assert best - 1e-9 <= visible < best + 0.06


def test_the_visible_learner_against_its_closed_form():
    task = Task(strings=20, bits=16, samples=20)
    errors = [recall(draw, *remember(draw)) for draw in (draw_task(task, np.random.default_rng(i)) for i in range(300))]
    unseen = [(1 - (task.bits - i) / (task.strings * task.bits)) ** task.samples for i in range(task.bits)]
    assert np.mean(errors) == pytest.approx(np.mean(unseen) / 2, abs=4 * np.std(errors) / 300**0.5)


def test_two_strings_share_a_key_with_probability_2_to_minus_m():
    strings = np.array(list(itertools.product((-1, 1), repeat=5)), dtype=np.int8)
    shelf, codes = shelve(strings, strings), first_bits(strings)
    for m in range(6):
        start, end = find(shelf, codes, np.array(m))
        assert (end - start == len(strings) * 2**-m).all()


def test_the_key_readers_error_against_a_count_by_hand():
    """One reference, seen whole, and one irrelevant string: where they differ, half right, if the keys agree."""
    task = Task(1, 3, 1, 1)
    draws = [draw for draw in every_draw(task) if draw.lengths[0] == 3]
    errors = np.mean([read(draw, range(4)) for draw in draws], axis=0)
    by_hand = [sum(0.5 * 0.5 * 2.0**-m for i in range(3) if i >= m) / 3 for m in range(4)]
    assert errors == pytest.approx(by_hand)


@given(
    st.integers(1, 6).flatmap(
        lambda d: st.tuples(
            st.lists(st.lists(st.sampled_from([-1, 1]), min_size=d, max_size=d), min_size=1, max_size=12),
            st.lists(st.integers(0, d), min_size=d, max_size=d),
        )
    )
)
def test_votes_are_those_of_the_strings_that_begin_alike(drawn):
    strings, shared = np.array(drawn[0], dtype=np.int8), np.array(drawn[1])
    votes = count_votes(shelve(strings, strings), first_bits(strings), shared[None])
    for (q, string), (i, s) in itertools.product(enumerate(strings), enumerate(shared)):
        assert votes[q, i] == sum(other[i] for other in strings if (other[:s] == string[:s]).all())


@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 90), st.integers(1, 20))
def test_what_is_remembered_without_identities(seed, strings, bits, samples):
    draw = draw_task(Task(strings, bits, samples), np.random.default_rng(seed))
    owners, lengths = remember(draw, visible=False)
    kept = [tuple(draw.strings[j, :k]) for j, k in zip(owners, lengths, strict=True)]
    seen = {tuple(draw.strings[j, :k]) for j, k in zip(draw.picks, draw.lengths, strict=True)}
    assert sorted(kept) == sorted(s for s in seen if not any(o != s and o[: len(s)] == s for o in seen))


@given(st.integers(0, 10_000), st.integers(0, 400))
def test_a_budget_is_kept_and_more_of_it_never_hurts(seed, budget):
    draw = draw_task(Task(8, 40, 8), np.random.default_rng(seed))
    owners, lengths = remember(draw)
    kept, more = (cut(lengths, b, np.random.default_rng(seed)) for b in (budget, budget + 7))
    assert kept.sum() == min(budget, lengths.sum()) and (kept <= lengths).all()
    assert recall(draw, owners, more) <= recall(draw, owners, kept) <= 0.5


@given(st.integers(0, 10_000), st.integers(2, 5))
def test_no_learner_beats_the_rate_distortion_bound(seed, order):
    task = Task(64, 64, 64)
    draw = draw_task(task, np.random.default_rng(seed))
    owners, lengths = remember(draw)
    known = lengths.sum()
    stored, lossy = recall_lossy(draw, order)
    assert stored < known
    kept = cut(lengths, stored, np.random.default_rng(seed))
    assert least_error(task, known, stored) < lossy < recall(draw, owners, kept)
    wrong = (lossy - 0.5 * (1 - known / 4096)) * 4096 / known  # of what was known
    assert wrong == pytest.approx(2.0**-order, abs=0.02)  # a perfect code: one word in 2^order is a codeword


def test_theorem_2():
    task = Task(strings=256, bits=64, samples=256, irrelevant=256)
    m = key_bits(task, 0.01)
    assert 2.0**-m * (1 - (255 / 256) ** 256) * 512 * 511 / 2 == pytest.approx(0.01)
    assert m <= math.log2(512**2 / 0.02)
    assert key_bits(Task(1, 8, 1, 0), 0.01) == 0  # nothing to mistake it for


@given(st.integers(0, 10_000), st.integers(2, 64), st.integers(0, 64), st.sampled_from([0.2, 0.05, 0.01]))
def test_the_key_reader_is_within_eps_at_theorem_2s_m(seed, strings, irrelevant, eps):
    task = Task(strings, 48, strings, irrelevant)
    draws = [draw_task(task, np.random.default_rng([seed, i])) for i in range(8)]
    errors = np.mean([read(draw, [math.ceil(key_bits(task, eps)), 48]) for draw in draws], axis=0)
    assert errors[0] - errors[1] <= eps
    assert errors[0] <= np.mean([recall(draw, *remember(draw)) for draw in draws]) + eps


def test_what_a_key_retrieves():
    draw = draw_task(Task(16, 40, 16, 16), np.random.default_rng(0))
    found, (owners, lengths) = retrieve(draw, 40), remember(draw)
    for owner, length in zip(owners, lengths, strict=True):
        assert (found[owner, :length] == draw.strings[owner, :length]).all()
        assert length < 12 or (found[owner] == draw.strings[owner]).all()
    assert not np.delete(found, owners, axis=0).any()


def test_a_network_trains_and_repeats():
    task = Task(8, 8, 8, 8)
    settings = SMOKE.model_copy(update={"network_bits": 8, "steps": 150, "batch": 64, "hidden": 16})
    first, again = train_networks(task, settings), train_networks(task, settings)
    assert (first.on_shown == again.on_shown).all() and first.on_shown.shape == (2, settings.network_draws)
    assert first.on_shown.max() < 0.1  # few bits: both hold them
    assert first.on_all.min() > 0.05  # what no sample showed cannot be known
    assert first.parameters == (32 + 3 * 8) * 16 + 16 + 16 + 1
