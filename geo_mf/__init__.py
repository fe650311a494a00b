"""geo_mf: a vector-search semantic recommender.

Factors from behaviour (matrix factorization in JAX), embeddings from text (sentence-transformers), one FAISS index
over both. Importing this package loads neither jax nor torch: each name below is imported when it is first used.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOME = {
    "FitDiverged": "errors",
    "GeoMFError": "errors",
    "IncompatibleIndex": "errors",
    "InvalidInput": "errors",
    "MissingExtra": "errors",
    "UnknownId": "errors",
    "Catalog": "data.catalog",
    "IdMap": "data.ids",
    "Interactions": "data.interactions",
    "read_catalog": "data.read",
    "read_interactions": "data.read",
    "IALS": "factorize.estimators",
    "HashEncoder": "text.encoder",
    "SentenceEncoder": "text.encoder",
    "ExactIndex": "index.exact",
    "FaissIndex": "index.faiss",
    "Recommendations": "recommender",
    "Recommender": "recommender",
    "BuildConfig": "builder",
    "build": "builder",
    "load": "store",
    "verify": "store",
    "Split": "evaluation.split",
    "evaluate": "evaluation.run",
}

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"geo_mf.{_HOME[name]}"), name)
    raise AttributeError(f"module 'geo_mf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
