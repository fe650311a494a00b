"""Settings of implicit's ALS converted to IALS where confidences differ: do both recommend the same?

    python benchmarks/conversion.py

MovieLens ml-latest-small, ratings as values, a tenth of them held out at random; K = 32, 10 exact epochs from the same
start, items first on both sides. The conversion is that of docs/coming_from.md. Needs the [bench] extra.
"""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("MKL_NUM_THREADS", "1")

import datasets
import numpy as np
from implicit.cpu.als import AlternatingLeastSquares
from scipy import sparse

import geo_mf as gm

FACTORS, EPOCHS, TOP = 32, 10, 10
SETTINGS = ((0.5, 0.1), (2, 0.1), (2, 10), (10, 1), (40, 1))


def converted(confidences: sparse.csr_array, regularization: float) -> tuple[np.ndarray, np.ndarray]:
    """User and item factors of IALS."""
    mean = float(confidences.data.mean())
    weights = confidences.copy()
    weights.data = (weights.data - 1) / (mean - 1)
    model = gm.IALS(FACTORS, regularization / mean, 1 / (mean - 1), EPOCHS, 0, "cholesky", random_state=0).fit(weights)
    return model.user_factors, model.item_factors


def original(confidences: sparse.csr_array, regularization: float) -> tuple[np.ndarray, np.ndarray]:
    """User and item factors of implicit, fitted on the transpose, so that items are solved first."""
    users, items = confidences.shape
    mean = float(confidences.data.mean())
    start = np.random.default_rng(0).standard_normal((users, FACTORS), np.float32)
    model = AlternatingLeastSquares(FACTORS, regularization, use_cg=False, iterations=EPOCHS)
    model.user_factors = np.zeros((items, FACTORS), np.float32)
    model.item_factors = start * np.float32(0.1 / np.sqrt(FACTORS * (mean - 1) / mean))
    model.fit(sparse.csr_matrix(confidences.T), show_progress=False)
    return model.item_factors, model.user_factors


def best(factors: tuple[np.ndarray, np.ndarray], seen: sparse.csr_array) -> np.ndarray:
    scores = factors[0] @ factors[1].T
    scores[seen.nonzero()] = -np.inf
    return np.argsort(-scores, axis=1)[:, :TOP]


def recall(lists: np.ndarray, test: sparse.csr_array) -> float:
    """Hits over min(TOP, held out), mean over the users with something held out."""
    held_out = [set(part.tolist()) for part in np.split(test.indices, test.indptr[1:-1])]
    shares = [
        len(set(row) & held) / min(TOP, len(held)) for row, held in zip(lists.tolist(), held_out, strict=True) if held
    ]
    return float(np.mean(shares))


def main() -> None:
    ratings = gm.read_interactions(
        datasets.folder("ml-latest-small") / "ratings.csv",
        user_col="userId",
        item_col="movieId",
        weight_col="rating",
        datetime_col="timestamp",
    )
    held_out = np.random.default_rng(0).random(len(ratings)) < 0.1
    train, test = ratings.select(~held_out).to_csr(), ratings.select(held_out).to_csr()
    print("| alpha | reg | shared | geo_mf | implicit |")
    for alpha, regularization in SETTINGS:
        confidences = train.copy()
        confidences.data = 1 + np.float32(alpha) * train.data
        ours, theirs = (best(fit(confidences, regularization), train) for fit in (converted, original))
        shared = np.mean([len(set(a) & set(b)) / TOP for a, b in zip(ours.tolist(), theirs.tolist(), strict=True)])
        print(f"| {alpha} | {regularization} | {shared:.0%} | {recall(ours, test):.3f} | {recall(theirs, test):.3f} |")


if __name__ == "__main__":
    main()
