"""The memorisation bound (KARD, Section 3), by simulation: what must be stored with and without a knowledge base.

The task (Brown et al., *When is memorization of irrelevant training data necessary for high-accuracy learning?*, STOC
2021), without corruption: `N` references of `d` fair bits. A training sample shows the first bits of one of them, from
1 to `d`, all lengths alike; a test point is a prefix of 0 to `d - 1` bits, and its next bit is to be predicted. With a
knowledge base, the learner may read the references at test time, among `R` irrelevant strings of the same kind.

**Reconstruction.** The paper's appendix was not available. Whether a learner is told *which* reference it sees is not
in the main text: both are computed ("visible", "hidden"). Theorem 1 is read with `P` as the task and not the strings
themselves: who knows the strings has at most `n math.log2(N d)` bits left to learn from the samples. The reader of keys
follows the only argument that gives Theorem 2's formula (see `key_bits`), which is no lower bound: `read` with
`prefix=True` needs less.

Errors are exact means over all test points of one draw of strings and samples; a learner without a reason for either
bit guesses, which counts one half.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from kardlib.artifacts.device import on_threads
from kardlib.settings import MemorizationSettings

Array = NDArray[Any]
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


def first_bits(strings: Array) -> Array:
    """The first 64 bits of strings (V, d) as numbers that sort like them, (V,) uint64; short ones end in zeros."""
    bits = np.zeros((len(strings), 64), dtype=bool)
    bits[:, : strings.shape[1]] = strings[:, :64] > 0
    return np.packbits(bits, axis=1).view(">u8")[:, 0].astype(np.uint64)


def shelve(strings: Array, votes: Array) -> Shelf:
    """Strings (V, d) by their first bits, with the votes that they cast, (V, d)."""
    codes = first_bits(strings)
    order = np.argsort(codes, kind="stable")
    total = np.int32 if votes.dtype.kind == "i" else np.float64
    sums = np.cumsum(votes[order], axis=0, dtype=total)
    return Shelf(codes[order], np.pad(sums, ((1, 0), (0, 0))))


def bits_after(first: Array) -> Array:
    """Numbers (uint64) whose bits are 0 up to the `first` ones, 1 after them; no more than `COMPARED` are 0."""
    return np.uint64(2**64 - 1) >> np.minimum(first, COMPARED).astype(np.uint64)


def find(shelf: Shelf, codes: Array, shared: Array) -> tuple[Array, Array]:
    """Where the strings begin and end on the shelf whose first `shared` bits are those of `codes` (broadcast)."""
    rest = bits_after(shared)
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


def longest_shown(draw: Draw) -> Array:
    """How many of the first bits of each reference the samples showed, (N,)."""
    longest = np.zeros(len(draw.references), dtype=int)
    np.maximum.at(longest, draw.picks, draw.lengths)
    return longest


def remember(draw: Draw, visible: bool = True) -> tuple[Array, Array]:
    """What the optimal learner stores: the references and how many of their first bits, both (K,).

    Visible: the longest string seen of each reference. Hidden: every string seen that does not begin another one.
    """
    if visible:
        longest = longest_shown(draw)
        owners = np.flatnonzero(longest)
        return owners, longest[owners]
    codes = first_bits(draw.references)[draw.picks]
    rest = bits_after(draw.lengths)
    order = np.lexsort((draw.lengths, codes & ~rest))  # a string stands right before those that it begins
    codes, rest = codes[order], rest[order]
    last = np.append(((codes[1:] ^ codes[:-1]) & ~rest[:-1]) != 0, True)
    return draw.picks[order][last], draw.lengths[order][last]


def recall(draw: Draw, owners: Array, lengths: Array, visible: bool = True) -> float:
    """Error of the learner that stores the first `lengths` bits of the references `owners` and nothing else.

    With all that `remember` gives it is the optimal learner, but for hidden identities, where every stored string that
    goes on from the prefix is one vote; the tests bound what this misses.
    """
    references = draw.references
    stored = references[owners] * (np.arange(references.shape[1]) < lengths[:, None])
    if visible:
        votes = np.zeros_like(references)
        votes[owners] = stored
    else:
        shelf = shelve(references[owners], stored)
        votes = count_votes(shelf, first_bits(references), np.arange(references.shape[1])[None])
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
    Hamming code, `order` bits shorter and wrong in at most one place; the rest after the last block is kept as it is.
    """
    references, size = draw.references, 2**order - 1
    shown = np.arange(references.shape[1]) < longest_shown(draw)[:, None]
    known = references[shown]
    blocks = known[: len(known) // size * size].reshape(-1, size)
    syndrome = np.bitwise_xor.reduce(np.where(blocks > 0, np.arange(1, size + 1), 0), axis=1)
    blocks[np.arange(1, size + 1) == syndrome[:, None]] *= -1  # syndrome 0: a codeword already
    votes = np.zeros_like(references)
    votes[shown] = np.concatenate([blocks.ravel(), known[blocks.size :]])
    return len(known) - order * len(blocks), mean_error(votes, references)


def least_error(task: Task, known: float, budget: float) -> float:
    """Error below which no learner can get that was shown `known` of the bits and stores `budget` bits.

    The rate-distortion function of fair bits, `budget / known = 1 - h(D)`, solved for `D` (Cover and Thomas, 10.3.1).
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

    Visible (Theorem 2's reconstruction): the strings that agree with the stored key vote on the next bit; a reference
    never seen has an empty key. With `prefix` they must also agree with the test point's prefix. Hidden: the strings
    vote that begin with the prefix; one that agrees with a stored key has a full vote, others as `weigh` says.
    """
    codes, positions = first_bits(draw.strings), np.arange(draw.strings.shape[1])
    asked, ordered = codes[: len(draw.references)], draw.strings[np.argsort(codes, kind="stable")]
    (owners, lengths), longest = remember(draw, visible), longest_shown(draw)
    shelf = shelve(ordered, ordered)
    errors = []
    for key in keys:
        if visible:
            shared = np.minimum(longest, key)[:, None]
            votes = count_votes(shelf, asked, np.maximum(shared, positions) if prefix else shared)
        else:
            agreeing = find(shelf, asked[owners], np.minimum(lengths, key))
            weights = weigh(agreeing, len(draw.references), len(codes))
            votes = count_votes(shelve(ordered, ordered * weights[:, None]), asked, positions[None])
        errors.append(mean_error(votes, draw.references))
    return np.array(errors)


def weigh(agreeing: tuple[Array, Array], references: int, everything: int) -> Array:
    """How likely each string of a knowledge base is a reference, (everything,), given where those stand that agree
    with each stored key: 1 if it agrees with one; else as many as are missing, spread evenly over the others."""
    begins, ends = (np.bincount(at, minlength=everything + 1) for at in agreeing)
    marked = np.cumsum(begins - ends)[:-1] > 0
    missing = max(0, references - len(agreeing[0])) / max(1, everything - marked.sum())
    return np.where(marked, 1.0, missing)


def retrieve(draw: Draw, key: int) -> Array:
    """The string (N, d) that the knowledge base holds for each reference's key; zeros for a reference never seen."""
    codes = first_bits(draw.strings)
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


def network_points(task: Task, settings: MemorizationSettings, number: int) -> tuple[Array, Array, Array]:
    """The test points of a draw: inputs (N d, 32 + 3 d), next bits (N d,), and the rows of those that samples showed.

    An input is a random name of the reference in 32 bits, the position, the prefix, and what Theorem 2's key retrieves.
    """
    d, rng = task.bits, np.random.default_rng([settings.seed, 5, task.strings, number])
    draw = draw_task(task, rng)
    names = rng.choice([-1, 1], size=(task.strings, 32))
    found = retrieve(draw, math.ceil(key_bits(task, settings.eps)))
    prefixes = draw.references[:, None] * np.tri(d, k=-1)  # (N, d, d)
    positions = np.tile(np.eye(d), (task.strings, 1))
    inputs = np.hstack([np.repeat(names, d, axis=0), positions, prefixes.reshape(-1, d), np.repeat(found, d, axis=0)])
    return inputs, draw.references.ravel() > 0, np.flatnonzero(np.arange(d) < longest_shown(draw)[:, None])


@on_threads(1)  # tensors are small: threads that wait for a busy core cost more than they give
def train_networks(task: Task, settings: MemorizationSettings) -> Trained:
    """Two networks a draw, of one shape: one is also given the retrieved string, the other zeros.

    They take `network_points` through one layer of `hidden` units to the next bit, so the number of weights does not
    depend on `N`. Both train on every bit that the samples show; each has first weights and batches of its own.
    """
    import torch  # late: it takes seconds

    drawn = [network_points(task, settings, number) for number in range(settings.network_draws)]
    inputs, labels, rows_shown = zip(*drawn, strict=True)
    with_kb = torch.tensor(np.stack(inputs), dtype=torch.float32)
    without = with_kb.clone()
    without[..., -task.bits :] = 0
    x = torch.cat([without, with_kb])  # (2 draws, N d, inputs)
    y = torch.tensor(np.stack(labels * 2), dtype=torch.float32)  # (2 draws, N d)
    shown = [torch.from_numpy(rows) for rows in rows_shown]
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
    on_shown = np.array([w[s].mean().item() for w, s in zip(wrong, shown * 2, strict=True)]).reshape(2, -1)
    on_all = wrong.mean(dim=1).double().numpy().reshape(2, -1)
    return Trained(on_shown, on_all, np.array([len(s) for s in shown]), sum(w[0].numel() for w in weights))
