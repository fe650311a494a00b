"""geo_mf: a vector-search semantic recommender.

Factors from behaviour (matrix factorization in JAX), embeddings from text (sentence-transformers), one FAISS index
over both. Importing this package loads neither jax nor torch: each name below is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geo_mf.threads import from_environment

if TYPE_CHECKING:
    from geo_mf.builder import BuildConfig, build
    from geo_mf.comparison.of_index import compare_index
    from geo_mf.comparison.result import Comparison
    from geo_mf.comparison.run import compare
    from geo_mf.data.catalog import Catalog
    from geo_mf.data.ids import IdMap
    from geo_mf.data.interactions import Interactions
    from geo_mf.data.read import read_catalog, read_interactions, read_users
    from geo_mf.errors import (
        DoesNotFit,
        FitDiverged,
        GeoMFError,
        IncompatibleIndex,
        InvalidInput,
        MissingExtra,
        UnknownId,
    )
    from geo_mf.evaluation.run import evaluate
    from geo_mf.evaluation.split import Split
    from geo_mf.evaluation.tune import tune
    from geo_mf.evaluation.tuning import Tuning
    from geo_mf.export.jobs import recommend_all, similar_items_all
    from geo_mf.export.vector_files import export_vectors
    from geo_mf.export.vector_reading import read_vectors
    from geo_mf.export.vectors import Vectors
    from geo_mf.factorize.biased import BiasedMF
    from geo_mf.factorize.estimators import IALS
    from geo_mf.factorize.gradient_mf import GradientMF
    from geo_mf.index.exact import ExactIndex
    from geo_mf.index.faiss import FaissIndex
    from geo_mf.recommendations import Recommendations
    from geo_mf.recommender import Recommender
    from geo_mf.rerank.exposure import Exposure, ExposureAccount
    from geo_mf.rerank.fusion import fuse
    from geo_mf.rerank.mmr import MMR
    from geo_mf.rerank.pool import Pool, Reranked, Reranker
    from geo_mf.rerank.quota import Quota
    from geo_mf.store import verify
    from geo_mf.store.binding import load, save
    from geo_mf.text.compress import compress, plan_compression
    from geo_mf.text.encoder import HashEncoder, SentenceEncoder
    from geo_mf.text.onnx_encoder import OnnxEncoder
    from geo_mf.text.onnx_export import export_onnx
    from geo_mf.threads import set_threads

__version__ = "0.1.0"

from_environment()  # before jax, torch and faiss are loaded: they read their variables then

_HOME = {
    "DoesNotFit": "errors",
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
    "read_users": "data.read",
    "BiasedMF": "factorize.biased",
    "GradientMF": "factorize.gradient_mf",
    "IALS": "factorize.estimators",
    "HashEncoder": "text.encoder",
    "SentenceEncoder": "text.encoder",
    "OnnxEncoder": "text.onnx_encoder",
    "compress": "text.compress",
    "plan_compression": "text.compress",
    "export_onnx": "text.onnx_export",
    "set_threads": "threads",
    "ExactIndex": "index.exact",
    "FaissIndex": "index.faiss",
    "MMR": "rerank.mmr",
    "Quota": "rerank.quota",
    "Exposure": "rerank.exposure",
    "ExposureAccount": "rerank.exposure",
    "Pool": "rerank.pool",
    "Reranked": "rerank.pool",
    "Reranker": "rerank.pool",
    "fuse": "rerank.fusion",
    "Recommendations": "recommendations",
    "Recommender": "recommender",
    "BuildConfig": "builder",
    "build": "builder",
    "load": "store.binding",
    "save": "store.binding",
    "verify": "store",
    "recommend_all": "export.jobs",
    "similar_items_all": "export.jobs",
    "Vectors": "export.vectors",
    "export_vectors": "export.vector_files",
    "read_vectors": "export.vector_reading",
    "Split": "evaluation.split",
    "evaluate": "evaluation.run",
    "Comparison": "comparison.result",
    "compare": "comparison.run",
    "compare_index": "comparison.of_index",
    "Tuning": "evaluation.tuning",
    "tune": "evaluation.tune",
}

__all__ = [
    "BiasedMF",
    "BuildConfig",
    "Catalog",
    "Comparison",
    "DoesNotFit",
    "ExactIndex",
    "Exposure",
    "ExposureAccount",
    "FaissIndex",
    "FitDiverged",
    "GeoMFError",
    "GradientMF",
    "HashEncoder",
    "IALS",
    "IdMap",
    "IncompatibleIndex",
    "Interactions",
    "InvalidInput",
    "MMR",
    "MissingExtra",
    "OnnxEncoder",
    "Pool",
    "Quota",
    "Recommendations",
    "Recommender",
    "Reranked",
    "Reranker",
    "SentenceEncoder",
    "Split",
    "Tuning",
    "UnknownId",
    "Vectors",
    "__version__",
    "build",
    "compare",
    "compare_index",
    "compress",
    "evaluate",
    "export_onnx",
    "export_vectors",
    "fuse",
    "load",
    "plan_compression",
    "read_catalog",
    "read_interactions",
    "read_users",
    "read_vectors",
    "recommend_all",
    "save",
    "set_threads",
    "similar_items_all",
    "tune",
    "verify",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"geo_mf.{_HOME[name]}"), name)
    raise AttributeError(f"module 'geo_mf' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
