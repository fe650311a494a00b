"""Figures of spaces and of evaluations. Each function returns a figure; nothing is shown, and pyplot is not used.

maps.py     space_map, two_maps: items laid flat
charts.py   spectrum, bar_metrics
flat.py     principal components in the plane (arrays only)
groups.py   which group gets which colour
words.py    names on a map, moved apart
style.py    colours, sizes, and the figure that notebooks can show
"""

from geo_mf.errors import MissingExtra

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise MissingExtra("plots need matplotlib, which is not installed: pip install 'geo_mf[plots]'") from error

from geo_mf.plot.charts import bar_metrics, spectrum
from geo_mf.plot.maps import space_map, two_maps
from geo_mf.plot.style import Picture

__all__ = ["Picture", "bar_metrics", "space_map", "spectrum", "two_maps"]
