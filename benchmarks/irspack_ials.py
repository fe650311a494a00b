"""irspack's feature-aware iALS, run by an interpreter that has irspack: benchmarks/cold_start.py --irspack PYTHON.

    PYTHON benchmarks/irspack_ials.py IN.npz OUT.npz

IN holds the training matrix (shape, starts, columns), the items' features and the settings as JSON; OUT gets the
factors of users and items, and for items nobody touched what their features predict.
"""

import json
import sys
import time

import numpy as np
from irspack.recommenders import IALSRecommender
from scipy import sparse


def main(source: str, target: str) -> None:
    with np.load(source) as given:
        ones = np.ones(len(given["columns"]), np.float32)
        matrix = sparse.csr_matrix((ones, given["columns"], given["starts"]), shape=tuple(given["shape"]))
        features, settings = given["features"], json.loads(str(given["settings"]))
    # A column of ones in the place of the constant that geo_mf's regression has.
    features = np.concatenate([features, np.ones((len(features), 1), np.float32)], axis=1)
    began = time.perf_counter()
    model = IALSRecommender(matrix, item_features=features, random_seed=0, **settings)
    model.learn()
    seconds = time.perf_counter() - began
    items = model.get_item_embedding()
    predicted = model.trainer_as_ials.transform_item_feature(features)
    np.savez(target, users=model.get_user_embedding(), items=items, predicted=predicted, seconds=seconds)


if __name__ == "__main__":
    main(*sys.argv[1:])
