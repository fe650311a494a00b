"""Figures of spaces and of evaluations. Each function returns a figure; nothing is shown, and pyplot is not used.

maps.py        space_map, two_maps: items laid flat
agreement.py   overlap_curve, crossover: two spaces of the same items
calibrated.py  calibration: cold and warm items in one list
training.py    training_loss
choice.py      validation_curve: which value of a setting to choose
speed.py       recall_speed
charts.py      spectrum, bar_metrics
flat.py        principal components in the plane (arrays only)
unfold.py      the plane by UMAP, an extra
movers.py      which items stand elsewhere, and their arrows
groups.py      which group gets which colour
words.py       names on a map, moved apart
lines.py       named lines in one chart, their key and their title
scales.py      axes with few, short numbers
fitting.py     words broken into lines, or cut, to fit their place
style.py       colours, sizes, and the figure that notebooks can show
"""

from geo_mf.errors import MissingExtra

try:
    import matplotlib  # noqa: F401
except ImportError as error:
    raise MissingExtra("plots need matplotlib, which is not installed: pip install 'geo_mf[plots]'") from error

from geo_mf.plot.agreement import crossover, overlap_curve
from geo_mf.plot.calibrated import calibration
from geo_mf.plot.charts import bar_metrics, spectrum
from geo_mf.plot.choice import validation_curve
from geo_mf.plot.maps import space_map, two_maps
from geo_mf.plot.speed import recall_speed
from geo_mf.plot.style import Picture
from geo_mf.plot.training import training_loss

__all__ = [
    "Picture",
    "bar_metrics",
    "calibration",
    "crossover",
    "overlap_curve",
    "recall_speed",
    "space_map",
    "spectrum",
    "training_loss",
    "two_maps",
    "validation_curve",
]
