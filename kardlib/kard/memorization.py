"""The memorisation bound (KARD, Section 3), by simulation: what must be stored with and without a knowledge base.

The task (Brown et al., *When is memorization of irrelevant training data necessary for high-accuracy learning?*, STOC
2021), without corruption: `N` references of `d` fair bits. A training sample shows the first bits of one of them, from
1 to `d`, all lengths alike; a test point is a prefix of 0 to `d - 1` bits, and its next bit is to be predicted. With a
knowledge base, the learner may read the references at test time, among `R` irrelevant strings of the same kind.

**Reconstruction.** The paper's appendix was not available. Whether a learner is told *which* reference it sees is not
in the main text: both are computed ("visible", "hidden"). Theorem 1 is read with `P` as the task and not the strings
themselves: who knows the strings has at most `n math.log2(N d)` bits left to learn from the samples. The reader of keys
follows the only argument that gives Theorem 2's formula (see `key_bits`). Theorem 2 says that a pair of learner and
reader *exists*; it is no lower bound, and `read` with `prefix=True` indeed needs less.

Errors are exact means over all test points of one draw of strings and samples; a learner without a reason for either
bit guesses, which counts one half.
"""

import json
import math
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from kardlib.artifacts.store import Kind, Store, write_json
from kardlib.settings import MemorizationSettings, SettingsError

Array = NDArray[Any]
MEMORIZATION = Kind("memorization")
COMPARED = 63  # bits by which strings are told apart; fair strings that agree in so many are the same one

# The task


class Task(NamedTuple):
    """Sizes of the next-symbol task."""

    strings: int  # N: references
    bits: int  # d: their length
    samples: int  # n: training samples
    irrelevant: int = 0  # R: other strings in the knowledge base

    def __str__(self) -> str:
        return f"N={self.strings} d={self.bits} R={self.irrelevant}"


class Draw(NamedTuple):
    """Strings and training samples. A bit is +1 (one) or -1 (zero), so that it is also a vote for itself."""

    strings: Array  # (N + R, d): the references, then the irrelevant strings
    picks: Array  # (n,): the reference that a sample shows
    lengths: Array  # (n,): how many of its bits, 1..d; the last one is the label
    irrelevant: int  # R

    @property
    def references(self) -> Array:
        """(N, d)."""
        return self.strings[: len(self.strings) - self.irrelevant]


def draw_task(task: Task, rng: np.random.Generator) -> Draw:
    """Fair strings, references picked evenly and with replacement, lengths even on 1..d."""
    strings = 2 * rng.integers(2, size=(task.strings + task.irrelevant, task.bits), dtype=np.int8) - 1
    picks = rng.integers(task.strings, size=task.samples)
    return Draw(strings, picks, rng.integers(1, task.bits + 1, size=task.samples), task.irrelevant)


def key_bits(task: Task, eps: float) -> float:
    """Theorem 2's `m = math.log2((1 - ((N-1)/N)^n) ((N+R)^2 - (N+R)) / (2 eps))`, at least 0.

    Reconstruction of why: two fair strings share an `m`-bit key with probability `2^-m`; the bound sums this over the
    pairs of the knowledge base, times the chance that the test point's reference was seen, and sets it to `eps`.
    """
    everything = task.strings + task.irrelevant
    seen = 1 - (1 - 1 / task.strings) ** task.samples
    pairs = everything * (everything - 1) / 2
    return max(0.0, math.log2(seen * pairs / eps)) if pairs else 0.0


# Votes: every learner predicts the bit for which more of the strings vote that begin like the test point's own


class Shelf(NamedTuple):
    """Strings in lexicographic order, so that those which begin alike stand together."""

    codes: Array  # (V,) uint64: the first bits as a number
    sums: Array  # (V + 1, d): votes for each position, summed over the strings that stand before


def encode(strings: Array) -> Array:
    """The first 64 bits of strings (V, d) as numbers that sort like them, (V,) uint64; short ones end in zeros."""
    bits = np.zeros((len(strings), 64), dtype=bool)
    bits[:, : strings.shape[1]] = strings[:, :64] > 0
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def shelve(strings: Array, votes: Array) -> Shelf:
    """Strings (V, d) by their first bits, with the votes that they cast, (V, d)."""
    codes = encode(strings)
    order = np.argsort(codes, kind="stable")
    total = np.int32 if votes.dtype.kind == "i" else np.float64
    sums = np.zeros((len(codes) + 1, strings.shape[1]), dtype=total)
    np.cumsum(votes[order], axis=0, out=sums[1:])
    return Shelf(codes[order], sums)


def find(shelf: Shelf, codes: Array, shared: Array) -> tuple[Array, Array]:
    """Where the strings begin and end on the shelf whose first `shared` bits are those of `codes` (broadcast)."""
    rest = np.uint64(2**64 - 1) >> np.minimum(shared, COMPARED).astype(np.uint64)
    return np.searchsorted(shelf.codes, codes & ~rest), np.searchsorted(shelf.codes, codes | rest, side="right")


def count_votes(shelf: Shelf, codes: Array, shared: Array) -> Array:
    """Votes for the next bit at each position, (Q, d), by the strings that share the first bits with `codes` (Q,).

    `shared` (Q, 1) or (Q, d): how many bits they must share at each position.
    """
    start, end = find(shelf, codes[:, None], shared)
    positions = np.arange(shelf.sums.shape[1])
    if shared.shape[1] == 1:  # whole rows are much faster than single elements
        return shelf.sums[end[:, 0]] - shelf.sums[start[:, 0]]
    return shelf.sums[end, positions] - shelf.sums[start, positions]


def mean_error(votes: Array, references: Array) -> float:
    """Share of wrong next bits over all references and positions; without a majority a guess counts one half."""
    agree = np.sign(np.round(votes * references, 6))  # rounded: sums of weights that cancel are not quite zero
    return float(0.5 * (1 - agree.mean()))


# Learners without a knowledge base


def remember(draw: Draw, visible: bool = True) -> tuple[Array, Array]:
    """What the optimal learner stores: the references and how many of their first bits, both (K,).

    Visible: the longest string seen of each reference. Hidden: every string seen that does not begin another one.
    """
    if visible:
        longest = np.zeros(len(draw.references), dtype=int)
        np.maximum.at(longest, draw.picks, draw.lengths)
        owners = np.flatnonzero(longest)
        return owners, longest[owners]
    codes = encode(draw.references)[draw.picks]
    rest = np.uint64(2**64 - 1) >> np.minimum(draw.lengths, COMPARED).astype(np.uint64)
    order = np.lexsort((draw.lengths, codes & ~rest))  # a string stands right before those that it begins
    codes, rest = codes[order], rest[order]
    last = np.append(((codes[1:] ^ codes[:-1]) & ~rest[:-1]) != 0, True)
    return draw.picks[order][last], draw.lengths[order][last]


def recall(draw: Draw, owners: Array, lengths: Array, visible: bool = True) -> float:
    """Error of the learner that stores the first `lengths` bits of the references `owners` and nothing else.

    With all that `remember` gives it is the optimal learner: exactly if identities are visible. If they are hidden, it
    counts every stored string that goes on from the prefix as one vote, and the tests bound what this misses.
    """
    references = draw.references
    stored = references[owners] * (np.arange(references.shape[1]) < lengths[:, None])
    if visible:
        votes = np.zeros_like(references)
        votes[owners] = stored
    else:
        shelf = shelve(references[owners], stored)
        votes = count_votes(shelf, encode(references), np.arange(references.shape[1])[None])
    return mean_error(votes, references)


def cut(lengths: Array, budget: int, rng: np.random.Generator) -> Array:
    """Lengths (K,) that add up to `budget` bits at most: strings are kept whole, in random order, while bits last."""
    order = rng.permutation(len(lengths))
    before = np.cumsum(lengths[order]) - lengths[order]
    kept = np.empty_like(lengths)
    kept[order] = np.clip(budget - before, 0, lengths[order])
    return kept


def recall_lossy(draw: Draw, order: int) -> tuple[int, float]:
    """Bits stored and error of a learner that keeps all it saw with a few wrong bits, identities visible.

    It cuts what `remember` gives into blocks of `2^order - 1` bits and stores each as the nearest codeword of the
    Hamming code, `order` bits shorter and wrong in at most one place. It shows that a budget is better spent on all
    strings a little wrong than on some strings exactly; what is left over after the last block is stored as it is.
    """
    references, size = draw.references, 2**order - 1
    owners, lengths = remember(draw)
    shown = np.zeros(references.shape, dtype=bool)
    shown[owners] = np.arange(references.shape[1]) < lengths[:, None]
    known = references[shown]
    blocks = known[: len(known) // size * size].reshape(-1, size)
    syndrome = np.bitwise_xor.reduce(np.where(blocks > 0, np.arange(1, size + 1), 0), axis=1)
    blocks[np.arange(1, size + 1) == syndrome[:, None]] *= -1  # syndrome 0: a codeword already
    votes = np.zeros_like(references)
    votes[shown] = np.concatenate([blocks.ravel(), known[blocks.size :]])
    return len(known) - order * len(blocks), mean_error(votes, references)


def least_error(task: Task, known: float, budget: float) -> float:
    """Error below which no learner can get that was shown `known` of the bits and stores `budget` bits.

    The rate-distortion function of fair bits, `budget / known = 1 - h(D)`, solved for `D` (Cover and Thomas, Theorem
    10.3.1); a formula, drawn beside what is computed.
    """
    low, high = 0.0, 0.5
    for _ in range(50):
        middle = (low + high) / 2
        entropy = float(stats.entropy([middle, 1 - middle], base=2))
        low, high = (middle, high) if 1 - entropy > budget / known else (low, middle)
    share = known / (task.strings * task.bits)
    return 0.5 * (1 - share) + share * low


# Learners with a knowledge base


def read(draw: Draw, keys: Sequence[int], *, visible: bool = True, prefix: bool = False) -> Array:
    """Error for each key length, (keys,): store so many first bits of every string seen, read the rest at test time.

    Visible: the strings of the knowledge base that agree with the stored key vote on the next bit; a reference never
    seen has an empty key. This is the reader of Theorem 2's reconstruction. With `prefix` they must also agree with the
    test point's prefix, which the reader is given as well. Hidden: the strings vote that begin with the prefix; one
    that agrees with a stored key has a full vote, the others the chance that they are a reference at all.
    """
    codes, positions = encode(draw.strings), np.arange(draw.strings.shape[1])
    asked, ordered = codes[: len(draw.references)], draw.strings[np.argsort(codes, kind="stable")]
    owners, lengths = remember(draw, visible)
    shelf = shelve(ordered, ordered)
    errors = []
    for key in keys:
        stored = np.minimum(lengths, key)
        if visible:
            shared = np.zeros((len(asked), 1), dtype=int)
            shared[owners, 0] = stored
            votes = count_votes(shelf, asked, np.maximum(shared, positions) if prefix else shared)
        else:
            weights = weigh(find(shelf, asked[owners], stored), len(draw.references), len(codes))
            votes = count_votes(shelve(ordered, ordered * weights[:, None]), asked, positions[None])
        errors.append(mean_error(votes, draw.references))
    return np.array(errors)


def weigh(agreeing: tuple[Array, Array], references: int, everything: int) -> Array:
    """How likely each string of a knowledge base is a reference, (everything,), given where those stand that agree
    with each stored key: 1 if it agrees with one; else as many as are missing, spread evenly over the others."""
    steps = np.zeros(everything + 1, dtype=int)
    np.add.at(steps, agreeing[0], 1)
    np.add.at(steps, agreeing[1], -1)
    marked = np.cumsum(steps)[:-1] > 0
    missing = max(0, references - len(agreeing[0])) / max(1, everything - marked.sum())
    return np.where(marked, 1.0, missing)


def retrieve(draw: Draw, key: int) -> Array:
    """The string (N, d) that the knowledge base holds for each reference's key; zeros for a reference never seen."""
    codes = encode(draw.strings)
    ordered = draw.strings[np.argsort(codes, kind="stable")]
    owners, lengths = remember(draw)
    first, _ = find(shelve(ordered, ordered), codes[owners], np.minimum(lengths, key))
    found = np.zeros_like(draw.references)
    found[owners] = ordered[first]
    return found


# A network of fixed size


class Trained(NamedTuple):
    """What trained networks get wrong; the first row is the network without the retrieved string."""

    on_shown: Array  # (2, draws): errors on the bits that the samples showed, where no error is needed
    on_all: Array  # (2, draws): errors on all test points
    shown: Array  # (draws,): how many bits the samples showed
    parameters: int  # weights of one network


def train_networks(task: Task, settings: MemorizationSettings) -> Trained:
    """Two networks a draw, alike but for their input: one is also given the retrieved string, the other zeros.

    Input: a random 32-bit name of the reference, the position, the prefix, the string that Theorem 2's key retrieves;
    one layer of `hidden` units; the next bit. So the number of weights does not depend on `N`. Both train on every bit
    that the samples show, on one CPU thread.
    """
    import torch  # late: it takes seconds

    torch.set_num_threads(1)  # tensors are small: threads that wait for a busy core cost more than they give
    d, inputs, labels, shown = task.bits, [], [], []
    for number in range(settings.network_draws):
        rng = np.random.default_rng([settings.seed, 5, task.strings, number])
        draw = draw_task(task, rng)
        names = rng.choice([-1, 1], size=(task.strings, 32))
        found = retrieve(draw, math.ceil(key_bits(task, settings.eps)))
        prefixes = draw.references[:, None] * np.tri(d, k=-1)  # (N, d, d)
        same = [np.repeat(part[:, None], d, axis=1) for part in (names, found)]
        parts = [same[0], np.broadcast_to(np.eye(d), (task.strings, d, d)), prefixes, same[1]]
        inputs.append(torch.tensor(np.concatenate(parts, axis=-1).reshape(task.strings * d, -1), dtype=torch.float32))
        labels.append(torch.tensor(draw.references.ravel() > 0, dtype=torch.float32))
        owners, lengths = remember(draw)
        known = np.zeros((task.strings, d), dtype=bool)
        known[owners] = np.arange(d) < lengths[:, None]
        shown.append(torch.from_numpy(np.flatnonzero(known)))
    with_kb = torch.stack(inputs)
    without = with_kb.clone()
    without[..., -d:] = 0
    x, y = torch.cat([without, with_kb]), torch.stack(labels * 2)  # (2 draws, N d, inputs), (2 draws, N d)
    networks, _, size = x.shape
    generator = torch.Generator().manual_seed(settings.seed)
    first = torch.randn(networks, size, settings.hidden, generator=generator) * (2 / size) ** 0.5
    second = torch.randn(networks, settings.hidden, 1, generator=generator) * settings.hidden**-0.5
    weights = [first, torch.zeros(networks, 1, settings.hidden), second, torch.zeros(networks, 1, 1)]
    optimizer = torch.optim.Adam([w.requires_grad_() for w in weights], lr=settings.lr)

    def predict(x: torch.Tensor) -> torch.Tensor:
        """Logits of all networks at once: (networks, points, inputs) -> (networks, points)."""
        units = torch.relu(torch.baddbmm(weights[1], x, weights[0]))
        return torch.baddbmm(weights[3], units, weights[2])[..., 0]

    rows = torch.arange(networks)[:, None]
    for step in range(settings.steps):
        optimizer.param_groups[0]["lr"] = settings.lr * (1 - step / settings.steps)
        points = torch.stack([s[torch.randint(len(s), (settings.batch,), generator=generator)] for s in shown * 2])
        loss = torch.nn.functional.binary_cross_entropy_with_logits(predict(x[rows, points]), y[rows, points])
        optimizer.zero_grad()
        (loss * networks).backward()  # the mean over networks, undone: they do not share anything
        optimizer.step()
    with torch.no_grad():
        wrong = ((predict(x) > 0) != (y > 0)).float()
    on_shown = np.array([w[s].mean().item() for w, s in zip(wrong, shown * 2, strict=True)])
    return Trained(
        on_shown.reshape(2, -1),
        wrong.mean(dim=1).double().numpy().reshape(2, -1),
        np.array([len(s) for s in shown]),
        sum(w[0].numel() for w in weights),
    )


# Tables: rows for `figures.long_form`, without the columns that all of a figure's rows share

Rows = list[dict[str, Any]]


def summarize(values: ArrayLike, **columns: Any) -> dict[str, Any]:
    """A row with the mean over draws and its 95 % t-interval, cut to what is possible: an excess may be negative."""
    values = np.asarray(values, dtype=float)
    mean, spread = values.mean(), values.std(ddof=1) / len(values) ** 0.5
    reach = stats.t.ppf(0.975, len(values) - 1) * spread
    least, most = (0 if values.min() >= 0 else -1, 1 if columns["metric"].startswith("error") else np.inf)
    low, high = np.clip([mean - reach, mean + reach], least, most)
    return columns | {"value": float(mean), "low": float(low), "high": float(high), "n": len(values)}


def draws_of(task: Task, count: int, seed: int) -> list[tuple[Draw, np.random.Generator]]:
    """Draws of a task, each with the generator that goes on from it."""
    generators = [np.random.default_rng([seed, *task, number]) for number in range(count)]
    return [(draw_task(task, rng), rng) for rng in generators]


def sample_rows(settings: MemorizationSettings) -> Rows:
    """(a) The optimal learner without a knowledge base as samples grow (`k`: n): its error and the bits it stores."""
    rows: Rows = []
    for factor in (1 / 4, 1 / 2, 1, 2, 4, 8):
        task = Task(settings.strings, settings.bits, int(factor * settings.strings))
        draws, where = draws_of(task, settings.draws, settings.seed), {"student": str(task), "k": task.samples}
        for method, visible in (("recall_visible", True), ("recall_hidden", False)):
            stored = [remember(draw, visible) for draw, _ in draws]
            errors = [recall(draw, *s, visible) for (draw, _), s in zip(draws, stored, strict=True)]
            rows.append(summarize(errors, method=method, metric="error_samples", **where))
            rows.append(summarize([s[1].sum() for s in stored], method=method, metric="bits_samples", **where))
        rows.append(where | {"method": "theorem_1", "metric": "bits_samples", "value": task.samples * task.bits})
    return rows


def budget_rows(settings: MemorizationSettings) -> Rows:
    """(b) Learners without a knowledge base held to a budget (`k`: bits), `n = N`: their errors."""
    task = Task(settings.strings, settings.bits, settings.strings)
    rate, draws = task.samples * task.bits, draws_of(task, settings.draws, settings.seed)
    where = {"student": str(task), "metric": "error_budget"}
    rows: Rows = [where | {"method": "theorem_1", "metric": "rate", "value": rate}]
    known = float(np.mean([remember(draw)[1].sum() for draw, _ in draws]))
    for budget in [round(rate * share / 20) for share in range(13)]:
        for method, visible in (("recall_visible", True), ("recall_hidden", False)):
            errors = []
            for draw, rng in draws:
                owners, lengths = remember(draw, visible)
                errors.append(recall(draw, owners, cut(lengths, budget, rng), visible))
            rows.append(summarize(errors, method=method, k=budget, **where))
    for budget in [round(rate * share / 100) for share in range(61)]:
        rows.append(where | {"method": "floor", "k": budget, "value": least_error(task, known, budget)})
    for order in range(2, 7):
        stored, errors = np.array([recall_lossy(draw, order) for draw, _ in draws]).T
        rows.append(summarize(errors, method="recall_lossy", k=round(stored.mean()), **where))
    return rows


READERS: dict[str, dict[str, bool]] = {
    "read_key": {},
    "read_prefix": {"prefix": True},
    "read_hidden": {"visible": False},
}


def key_rows(task: Task, eps: Sequence[float], draws: int, seed: int, readers: Sequence[str] = ("read_key",)) -> Rows:
    """(c) Readers of a knowledge base: error and excess for each key length (`k`), and Theorem 2's `m` for each `eps`.

    Excess is over the same reader with keys of all `d` bits; "excess_recall" over the optimal learner without a
    knowledge base, which is the method "recall_visible".
    """
    where = {"student": str(task)}
    marks = {e: key_bits(task, e) for e in eps}
    rows: Rows = [where | {"method": "theorem_2", "metric": f"m_eps{e:g}", "value": m} for e, m in marks.items()]
    keys = range(min(task.bits, math.ceil(max(marks.values())) + 2) + 1)
    drawn = [draw for draw, _ in draws_of(task, draws, seed)]
    optimal = np.array([recall(draw, *remember(draw)) for draw in drawn])
    rows.append(summarize(optimal, method="recall_visible", metric="error_keys", **where))
    for method in readers:
        errors = np.array([read(draw, [*keys, task.bits], **READERS[method]) for draw in drawn]).T  # (keys + 1, draws)
        for key, error in zip(keys, errors[:-1], strict=True):
            rows.append(summarize(error, method=method, metric="error_keys", k=key, **where))
            rows.append(summarize(error - errors[-1], method=method, metric="excess_keys", k=key, **where))
            rows.append(summarize(error - optimal, method=method, metric="excess_recall", k=key, **where))
    return rows


def sweep_rows(settings: MemorizationSettings) -> Rows:
    """(c) `key_rows` for several `N`, several `R` and several `eps`, with `n = N`; all readers at the middle."""
    n, d, r, eps = settings.strings, settings.bits, settings.irrelevant, settings.eps
    sizes = [(n // 16, r), (n // 4, r), (4 * n, r), (n, 0), (n, 4 * r), (n, 16 * r)]
    rows = key_rows(Task(n, d, n, r), [10 * eps, eps, eps / 10], settings.draws, settings.seed, list(READERS))
    for strings, irrelevant in dict.fromkeys(size for size in sizes if size != (n, r)):
        rows += key_rows(Task(strings, d, strings, irrelevant), [eps], settings.draws, settings.seed)
    return rows


def growth_rows(settings: MemorizationSettings) -> Rows:
    """(d) The fewest bits with which each learner is within `eps` of its optimum, as `d` (`k`) grows; `n = N = R`.

    Found by bisection for every draw: budgets in steps of `n d / 256`, keys in whole bits.
    """
    rows: Rows = []
    for d in settings.growth_bits:
        task = Task(settings.growth_strings, d, settings.growth_strings, settings.growth_strings)
        rate, m = task.samples * d, key_bits(task, settings.eps)
        where = {"student": f"N={task.strings} R={task.irrelevant}", "k": d, "metric": "bits"}
        drawn = draws_of(task, settings.growth_draws, settings.seed)
        rows += [
            where | {"method": "theorem_1", "value": rate},
            where | {"method": "theorem_2", "value": task.samples * m},
        ]
        for method, visible in (("recall_visible", True), ("recall_hidden", False)):
            needed = [fewest_bits(draw, visible, settings.eps, rate / 256) for draw, _ in drawn]
            rows.append(summarize(needed, method=method, **where))
        for method in ("read_key", "read_prefix"):
            lengths = [shortest_key(draw, method, settings.eps) for draw, _ in drawn]
            needed = [
                float(np.minimum(remember(draw)[1], k).sum()) for (draw, _), k in zip(drawn, lengths, strict=True)
            ]
            rows.append(summarize(needed, method=method, **where))
            rows.append(summarize(lengths, method=method, **where | {"metric": "key_length"}))
    return rows


def fewest_bits(draw: Draw, visible: bool, eps: float, step: float) -> float:
    """The smallest budget, in multiples of `step`, within `eps` of what storing everything reaches."""
    owners, lengths = remember(draw, visible)
    limit = recall(draw, owners, lengths, visible) + eps

    def enough(steps: int) -> bool:
        kept = cut(lengths, round(steps * step), np.random.default_rng(0))  # always in the same order
        return recall(draw, owners, kept, visible) <= limit

    return step * bisect_left(range(math.ceil(lengths.sum() / step)), True, key=enough)


def shortest_key(draw: Draw, method: str, eps: float) -> int:
    """The smallest key length within `eps` of what the same reader reaches with keys of all `d` bits."""
    d = draw.strings.shape[1]
    limit = read(draw, [d], **READERS[method])[0] + eps
    return bisect_left(range(min(d, COMPARED)), True, key=lambda key: read(draw, [key], **READERS[method])[0] <= limit)


def network_rows(settings: MemorizationSettings) -> Rows:
    """(e) Networks of one size as `n d` (`k`) grows, `n = N = R`: errors on shown bits and on all, and the bits held.

    A network that gets a share `e` of `K` shown bits wrong holds at least `K (1 - h(e))` bits about them (see
    `least_error`).
    """
    rows: Rows = []
    for strings in settings.network_strings:
        task = Task(strings, settings.network_bits, strings, strings)
        trained = train_networks(task, settings)
        where = {"student": f"{trained.parameters:,} weights", "k": strings * task.bits}
        for method, shown, everywhere in zip(("network", "network_kb"), trained.on_shown, trained.on_all, strict=True):
            rows.append(summarize(shown, method=method, metric="error_shown", **where))
            rows.append(summarize(everywhere, method=method, metric="error_all", **where))
            for seed, value in enumerate(shown):
                rows.append(where | {"method": method, "metric": "error_shown", "seed": seed, "value": float(value)})
        wrong = np.minimum(trained.on_shown[0], 0.5)
        held = trained.shown * (1 - stats.entropy([wrong, 1 - wrong], base=2))
        rows.append(summarize(held, method="network", metric="bits_held", **where))
        rows.append(summarize(trained.shown, method="network", metric="bits_shown", **where))
    return rows


PARTS = {
    "samples": sample_rows,
    "budgets": budget_rows,
    "keys": sweep_rows,
    "growth": growth_rows,
    "network": network_rows,
}


def measure(part: str, settings: MemorizationSettings, store: Store | None = None, **columns: Any) -> Rows:
    """The rows of one of `PARTS` with `columns` added; made once, then read from the store."""
    spec = {"part": part, "settings": settings.model_dump(mode="json")}
    build = PARTS[part]
    folder = (store or Store()).make(
        MEMORIZATION, spec, lambda folder: write_json(folder / "rows.json", build(settings))
    )
    return [columns | row for row in json.loads((folder / "rows.json").read_text("utf-8"))]


def growth_row(rows: Rows, method: str) -> dict[str, Any]:
    """How the bits that a learner needs grow with the length of a string: their slope on logarithmic axes.

    Between the ends of the sweep "growth"; the interval takes their intervals at their worst. One bit is added to both
    ends, since a reader may need none. The sweep starts where n d reaches Theorem 2's n m: in a string shorter than a
    key the key is the whole string, and grows with it whatever the theorem says. Raises SettingsError for fewer than
    two lengths from there on.
    """
    found = [row for row in rows if row["metric"] == "bits"]
    rate, enough = (
        {row["k"]: row["value"] for row in found if row["method"] == name} for name in ("theorem_1", "theorem_2")
    )
    long = [row for row in found if enough.get(row["k"], 0) <= rate.get(row["k"], math.inf)]
    bits = sorted((row for row in long if row["method"] == method), key=lambda row: int(row["k"]))
    if len(bits) < 2:
        raise SettingsError(
            "memorization.growth_bits: two or more of the lengths must be no shorter than Theorem 2's m"
        )
    first, last = bits[0], bits[-1]
    span = math.log2(last["k"] / first["k"])
    ends = (("value", "value"), ("low", "high"), ("high", "low"))
    slope = {at: math.log2((1 + max(0, last[at])) / (1 + max(0, first[of]))) / span for at, of in ends}
    about = {name: value for name, value in last.items() if name not in ("k", "metric")}
    return about | {"metric": "growth of bits with d"} | slope
