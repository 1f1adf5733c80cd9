"""F1 and the correlation against their plain formulas, and what their intervals and gains are."""

import numpy as np
import pytest

from kardlib.report.statistics import ratio_difference, ratio_interval


def draw(rng, count, share, seeds):
    """Gold classes, so many of them true, and what every seed says, right in four of five."""
    gold = rng.random(count) < share
    return gold, np.stack([np.where(rng.random(count) < 0.8, gold, ~gold) for _ in range(seeds)])


def test_f1_and_its_interval():
    gold, said = draw(np.random.default_rng(0), 200, 0.6, 3)
    plain = []
    for row in said:
        hit, wrong, missed = (row & gold).sum(), (row & ~gold).sum(), (~row & gold).sum()
        plain.append(2 * hit / (2 * hit + wrong + missed))
    interval = ratio_interval("f1", said, gold)
    assert interval.mean == pytest.approx(np.mean(plain))
    assert interval.low < interval.mean < interval.high < interval.low + 0.2
    assert ratio_interval("f1", gold, gold) == (1, 1, 1)
    assert ratio_interval("f1", np.zeros(200), gold).mean == 0
    with pytest.raises(ValueError, match="do not belong together"):
        ratio_interval("f1", said, gold[:5])


def test_a_difference_in_f1_is_paired():
    gold, worse = draw(rng := np.random.default_rng(0), 200, 0.6, 8)
    better = np.where(rng.random(worse.shape) < 0.3, gold, worse)  # some of its mistakes are mended
    gain = ratio_difference("f1", better, worse, gold)
    alone = ratio_interval("f1", better, gold), ratio_interval("f1", worse, gold)
    assert gain.mean == pytest.approx(alone[0].mean - alone[1].mean)
    assert 0 < gain.low < gain.mean < gain.high
    assert gain.high - gain.low < min(interval.high - interval.low for interval in alone)
    loss = ratio_difference("f1", worse, better, gold)
    assert loss == pytest.approx((-gain.mean, -gain.high, -gain.low, gain.p))
    assert ratio_difference("f1", worse, worse, gold) == (0, 0, 0, 1) and gain.p < 0.05
    assert ratio_difference("f1", gold, worse, gold).mean == pytest.approx(1 - alone[1].mean)  # one row beside eight
    with pytest.raises(ValueError, match="broadcast"):
        ratio_difference("f1", better, worse[:, :5], gold)


def test_matthews_correlation_and_its_interval():
    gold, said = draw(np.random.default_rng(0), 400, 0.7, 3)
    plain = []
    for row in said:
        tp, tn, fp, fn = (row & gold).sum(), (~row & ~gold).sum(), (row & ~gold).sum(), (~row & gold).sum()
        plain.append((tp * tn - fp * fn) / np.sqrt(1.0 * (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
    interval = ratio_interval("matthews", said, gold)
    assert interval.mean == pytest.approx(np.mean(plain))
    assert interval.low < interval.mean < interval.high < interval.low + 0.2
    assert ratio_interval("matthews", gold, gold) == pytest.approx((1, 1, 1))
    assert ratio_interval("matthews", ~gold, gold) == pytest.approx((-1, -1, -1))
    assert ratio_interval("matthews", np.ones(400), gold) == pytest.approx((0, 0, 0))  # one class everywhere
    gain = ratio_difference("matthews", gold, said, gold)
    assert gain.mean == pytest.approx(1 - np.mean(plain)) and gain.low > 0 and gain.p < 0.05
    assert ratio_difference("matthews", said, said, gold) == (0, 0, 0, 1)
    with pytest.raises(ValueError, match="do not belong together"):
        ratio_interval("matthews", said, gold[:5])


def test_of_one_question_a_ratio_may_be_all_that_it_can_be():
    assert ratio_interval("f1", [True], [True]) == (1, 0, 1)
    assert ratio_interval("matthews", [True], [True]) == (0, -1, 1)
    assert ratio_difference("f1", [True], [False], [True])[:3] == (1, -1, 1)
    assert ratio_difference("matthews", [True], [False], [True])[:3] == (0, -2, 2)
