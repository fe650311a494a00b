"""From interactions and a catalogue to an index."""

from geo_mf.builder.build import build
from geo_mf.builder.config import BuildConfig

__all__ = ["BuildConfig", "build"]
