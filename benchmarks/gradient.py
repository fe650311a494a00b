"""GradientMF on Gowalla, LightGCN's split: Recall@20 and NDCG@20 over all items for each loss, with 64 numbers an item:
63 factors and a bias, or 64 factors for mse, which has no bias.

    python benchmarks/gradient.py [--loss softmax ccl bpr mse] [--epochs 40] [--validation]

Settings were chosen with --validation, which judges on a tenth of the training interactions, held out; the test file is
for the final figure. Training items are left out of the ranking; Recall@20 is the mean over test users of hits divided
by the user's test items.
"""

import argparse
import time
from typing import Any

import datasets
import numpy as np
import optax
from scipy import sparse

import geo_mf as gm
from geo_mf.evaluation.metrics import ndcg, recall
from geo_mf.index.exact import ExactIndex

CUT, BATCH = 20, 2048
SETTINGS: dict[str, dict[str, Any]] = {
    "softmax": {"popularity": 0.5, "history_items": 16},
    "ccl": {"margin": 0.4, "negative_weight": 100.0},
    "bpr": {},
    "mse": {"factors": 64, "regularization": 0.01, "negative_weight": 20.0, "history_items": 0},
}
EPOCHS = {"softmax": 40, "ccl": 25, "bpr": 25, "mse": 22}
PEAK = 0.02
"""Learning rate of adam at the start; it falls to 0 along a cosine over all epochs."""


def load(validation: bool) -> tuple[sparse.csr_array, sparse.csr_array]:
    home = datasets.folder("gowalla")
    train = sparse.csr_array(sparse.load_npz(home / "train.npz")).astype(np.float32)
    if validation:
        held = np.random.default_rng(5).random(train.nnz) < 0.1
        user = np.repeat(np.arange(train.shape[0]), np.diff(train.indptr))
        parts = (sparse.csr_array((train.data[m], (user[m], train.indices[m])), train.shape) for m in (~held, held))
        return tuple(parts)
    lines = [np.array(line.split(), np.int64) for line in (home / "test.txt").read_text().splitlines()]
    user = np.concatenate([np.full(len(line) - 1, line[0]) for line in lines if len(line)])
    item = np.concatenate([line[1:] for line in lines if len(line)])
    return train, sparse.csr_array((np.ones(len(user), np.float32), (user, item)), train.shape)


def judge(model: gm.IALS | gm.GradientMF, train: sparse.csr_array, test: sparse.csr_array) -> tuple[float, float]:
    users, index, figures = np.flatnonzero(np.diff(test.indptr)), ExactIndex(model.item_vectors), []
    for part in np.array_split(users, max(1, len(users) // 2048)):
        seen = [train.indices[train.indptr[u] : train.indptr[u + 1]] for u in part]
        rows = index.search(model.user_vectors[part], CUT, None, seen).rows
        figures.append(np.stack([recall(rows, test[part], CUT), ndcg(rows, test[part], CUT)]))
    return tuple(np.concatenate(figures, axis=1).mean(axis=1).tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--loss", nargs="+", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--epochs", type=int, help="in place of 40, 25, 25 and 22")
    parser.add_argument("--validation", action="store_true")
    arguments = parser.parse_args()
    print(datasets.machine())
    train, test = load(arguments.validation)
    print(f"judged on {'held-out training interactions' if arguments.validation else 'the test file'}")
    for loss in arguments.loss:
        began = time.perf_counter()
        epochs = arguments.epochs or EPOCHS[loss]
        adam = optax.adam(optax.cosine_decay_schedule(PEAK, epochs * train.nnz // BATCH))
        how = {"factors": 63, "optimizer": adam, "epochs": epochs, "batch_size": BATCH, "random_state": 0}
        model = gm.GradientMF(loss=loss, **how | SETTINGS[loss])
        seconds: list[float] = []
        model.fit(train, callback=lambda _number, spent, _loss, _ndcg, told=seconds: told.append(spent))
        total = time.perf_counter() - began
        found = judge(model, train, test)
        print(
            f"{loss:<8} Recall@20 {found[0]:.4f}  NDCG@20 {found[1]:.4f}  best after {best_epoch(model)} of "
            f"{len(seconds)} epochs, {np.median(seconds):.1f} s each, {total / 60:.1f} min in all",
            flush=True,
        )


def best_epoch(model: gm.GradientMF) -> int:
    return max(model.history, key=lambda epoch: model.history[epoch])


if __name__ == "__main__":
    main()
