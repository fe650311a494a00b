"""The settings of a build."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from geo_mf.data.weighting import Meaning
from geo_mf.errors import InvalidInput


class BuildConfig(BaseModel):
    """Every setting of a build. A bad value raises InvalidInput when made with `BuildConfig.of`."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    factors: Annotated[int, Field(ge=1, le=4096)] | None = None
    """Length of a factor; None chooses 128 to 512, by the number of users and items."""
    regularization: Annotated[float, Field(gt=0)] | None = None
    """lam: how strongly factors are pulled to zero, or to what the text says; None chooses it from the data."""
    unobserved_weight: Annotated[float, Field(ge=0)] | None = None
    """a0: the weight of a pair nobody was seen to touch, against about 1 for an interaction; None chooses it from the
    data."""
    iterations: Annotated[int, Field(ge=1)] = 8
    """Epochs of the factorization."""
    nu: Annotated[float, Field(ge=0, le=2)] | None = None
    """Exponent of the frequency-scaled regularisation. None is 1 where one of the two weights is named, else 0.7."""
    activity_discount: Annotated[float, Field(ge=0, le=1)] | None = None
    """p: an interaction counts less, the more its user has of them (n^-p). None is 0 where one of the two weights
    is named, else 0.25."""
    popularity_discount: Annotated[float, Field(ge=0, le=1)] | None = None
    """q: an interaction counts less, the more its item has of them (n^-q). None is 0 where one of the two weights
    is named, else 0.3."""
    solver: Literal["cg", "cholesky"] = "cg"
    """How a row is solved: a few conjugate gradient steps, or exactly."""
    cg_steps: Annotated[int, Field(ge=1)] = 3
    """Conjugate gradient steps."""
    prior_regularization: Annotated[float, Field(gt=0)] = 3.0
    """Shrinkage of the linear map from features to factors, which the fit alternates with."""
    weighting: Meaning = "log"
    """What an interaction's weight means: log(1 + weight), the weight itself, or nothing. Scaled to a mean of 1."""
    encoder: str | None = None
    """Model that reads the texts: a local folder, a hub name, "hash" (for tests); None is all-MiniLM-L6-v2."""
    cache: bool = True
    """Keep embeddings on disk, so that the next build encodes only new texts."""
    learn_blend: bool = True
    """Learn how much text, cold items and the trend should count, and how firmly newcomers are held to the mean user;
    costs one more fit and some epochs (without texts half a fit), with datetimes two fits more."""
    attributes: tuple[str, ...] = ()
    """Columns of the catalogue that are features beside the text: categories, lists, numbers, dates."""
    user_attributes: tuple[str, ...] | None = None
    """Columns of the table of users that count; None: all of them."""
    cold_share: Annotated[float, Field(ge=0, le=1)] | None = None
    """Share of the interactions to come that you expect for items nobody has touched yet; it decides how high they
    stand among the others. None: with datetimes, what such items got in the past, else a half."""
    index: str | None = None
    """Kind of index, a Faiss factory string such as "IVF4096,SQ8" or "HNSW32"; "Flat" scores every item. None plans it:
    every item where that is fast, else cells that are looked into until `recall` holds."""
    recall: Annotated[float, Field(gt=0, le=1)] = 0.95
    """Share of the true 10 and 100 best items that the index has to find."""
    text_dims: Annotated[int, Field(ge=1)] | None = None
    """Dimensions of the text in which candidates are looked for (PCA); they are scored by the whole text. None: up to
    128, and all where every item is scored."""
    index_rate: Annotated[float, Field(gt=0)] = 300.0
    """Queries a second that one core should answer. Where scoring every item does that, nothing else is planned."""
    index_memory: Annotated[int, Field(ge=0)] | None = None
    """Megabytes that a planned index may take beside the vectors; None sets no limit."""
    threads: Annotated[int, Field(ge=0)] = 0
    """Cores of a build, for its encoder, its fits and its index; 0 for all."""
    seed: Annotated[int, Field(ge=0)] = 0
    """Seed of every random choice."""

    @field_validator("attributes", "user_attributes", mode="before")
    @classmethod
    def _columns(cls, given: Any) -> Any:
        """A string names columns separated by commas, as on the command line."""
        return tuple(name.strip() for name in given.split(",") if name.strip()) if isinstance(given, str) else given

    @classmethod
    def of(cls, **settings: Any) -> "BuildConfig":
        """A configuration, or InvalidInput that names the setting, the value found and what is allowed."""
        try:
            return cls(**settings)
        except ValidationError as error:
            problems = "; ".join(
                f"{'.'.join(map(str, e['loc']))} is {e['input']!r}: {e['msg'][:1].lower()}{e['msg'][1:]}"
                for e in error.errors()
            )
            raise InvalidInput(f"{problems}. Settings are: {', '.join(cls.model_fields)}") from error
