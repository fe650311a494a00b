"""Everything geo_mf raises on purpose.

    GeoMFError
    ├── InvalidInput (ValueError)        what the caller gave cannot be used
    ├── UnknownId (LookupError)          an id that this index or model has never seen
    ├── IncompatibleIndex                an artefact that is damaged, too new, or built by another encoder
    ├── FitDiverged (ArithmeticError)    the factors became infinite or NaN
    └── MissingExtra (ImportError)       an optional package is not installed

A message names the value found, the value expected and the remedy.
"""

__all__ = ["DoesNotFit", "FitDiverged", "GeoMFError", "IncompatibleIndex", "InvalidInput", "MissingExtra", "UnknownId"]


class GeoMFError(Exception):
    """Base of every error that geo_mf raises on purpose."""


class InvalidInput(GeoMFError, ValueError):
    """An argument, a file or a setting cannot be used as it is."""


class DoesNotFit(InvalidInput):
    """A fit would need more memory than there is."""


class UnknownId(GeoMFError, LookupError):
    """A user or an item that is not in this index or model."""


class IncompatibleIndex(GeoMFError):
    """An artefact that is damaged, was written by a newer format, or does not match its encoder."""


class FitDiverged(GeoMFError, ArithmeticError):
    """A fit produced factors that are not finite."""


class MissingExtra(GeoMFError, ImportError):
    """An optional package is missing; the message holds the install line."""
