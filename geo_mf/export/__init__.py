"""Lists for everybody at once, as a folder of Parquet files."""

from geo_mf.export.jobs import Export, recommend_all, similar_items_all

__all__ = ["Export", "recommend_all", "similar_items_all"]
