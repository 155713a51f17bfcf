"""A bank's boosted trees score applicants of a lender: neither shows its side, and the lender learns the decisions.

The bank has the forest: which feature each level of a tree looks at, the thresholds, the values of the leaves. The
lender has the applicants' features. All comparisons of all trees are one step on shares; then each bit chooses half of
the leaves that are left. The lender is told who reaches a public score, and not the scores.

    python examples/credit_forest.py --network lan
"""

import argparse
from dataclasses import dataclass

import numpy as np

import shareflow as sf

FEATURES, DEPTH, TREES, APPLICANTS = 8, 3, 20, 40
LEAVES = 2**DEPTH
ENOUGH = 0.0  # public: a score from here on is accepted
LIMIT = 16.0  # public: features are scaled, and differ from any threshold by less


@dataclass(frozen=True)
class Forest:
    """Trees that ask the same question at all nodes of a level.

    ``looks`` [FEATURES, TREES * DEPTH] has one 1 in each column; ``thresholds`` [TREES * DEPTH]; ``leaves`` [TREES,
    LEAVES].
    """

    looks: np.ndarray
    thresholds: np.ndarray
    leaves: np.ndarray

    def scores(self, x: np.ndarray) -> np.ndarray:
        """In the clear."""
        bits = (x @ self.looks >= self.thresholds).reshape(-1, TREES, DEPTH)
        number = bits @ (2 ** np.arange(DEPTH - 1, -1, -1))
        return np.take_along_axis(self.leaves[None], number[..., None], 2)[..., 0].sum(1)


def people(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Made-up applicants, and 1 or -1 for those who paid back or did not."""
    random = np.random.default_rng(seed)
    x = random.normal(0, 1, (count, FEATURES))
    good = x[:, 0] + np.abs(x[:, 1]) - 1.5 * (x[:, 2] > 0.5) + 0.5 * x[:, 3] * x[:, 4] > 0.3
    return x, np.where(good, 1.0, -1.0)


def grow(x: np.ndarray, y: np.ndarray) -> Forest:
    """Boosting: each tree is fitted to what those before it leave over, level by level the best of some thresholds."""
    looks, thresholds, leaves = np.zeros((FEATURES, TREES * DEPTH)), [], []
    left = y.copy()
    for tree in range(TREES):
        number = np.zeros(len(x), int)
        for level in range(DEPTH):
            deciles = np.round(np.quantile(x, np.arange(1, 10) / 10, axis=0), 3)
            options = [(f, t) for f in range(FEATURES) for t in deciles[:, f]]
            gain = [_gain(2 * number + (x[:, f] >= t), left) for f, t in options]
            feature, threshold = options[int(np.argmax(gain))]
            looks[feature, DEPTH * tree + level] = 1.0
            thresholds.append(threshold)
            number = 2 * number + (x[:, feature] >= threshold)
        sums, counts = np.bincount(number, left, LEAVES), np.bincount(number, minlength=LEAVES)
        leaves.append(0.3 * sums / np.maximum(counts, 1))
        left -= leaves[-1][number]
    return Forest(looks, np.array(thresholds), np.array(leaves))


def _gain(number: np.ndarray, left: np.ndarray) -> float:
    sums, counts = np.bincount(number, left), np.bincount(number)
    return float((sums**2 / np.maximum(counts, 1)).sum())


@sf.function
def accepted(
    x: sf.PrivateTensor, looks: sf.PrivateTensor, thresholds: sf.PrivateTensor, leaves: sf.PrivateTensor
) -> sf.PrivateTensor:
    reached = sf.non_negative(x @ looks - thresholds, bound=LIMIT).reshape(APPLICANTS, TREES, DEPTH)
    values = leaves.reshape(1, TREES, LEAVES)
    for level in range(DEPTH):
        half = values.shape[2] // 2
        values = sf.nn.where(reached[:, :, level : level + 1], values[:, :, half:], values[:, :, :half])
    scores = values.reshape(APPLICANTS, TREES).sum(1)
    return (scores >= ENOUGH).reveal("lender")


def main() -> None:
    """Grows a forest at the bank, and scores the lender's applicants, privately and in the clear."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--network", default="wan", help="here, loopback, lan, wan, or such as 40ms,100Mbit")
    network = parser.parse_args().network
    forest = grow(*people(2000, 1))
    x, good = people(APPLICANTS, 2)
    at_bank = [sf.private_tensor(part, "bank") for part in (forest.looks, forest.thresholds, forest.leaves)]
    arguments = (sf.private_tensor(x, "lender"), *at_bank)
    choice = sf.choose(accepted, *arguments, network=network)
    private = choice(*arguments).numpy()
    clear = forest.scores(x) >= ENOUGH
    print(f"accepted {private.sum():.0f} of {APPLICANTS}, in the clear {clear.sum()}")
    same, right = np.mean(private == clear), np.mean((good > 0) == clear)
    print(f"same decisions {100 * same:.1f} %, right ones {100 * right:.1f} %")
    print("\n".join(choice.lines(choice.measure())))


if __name__ == "__main__":
    main()
