"""A list of recommended items: what they are, how well they fit, and why."""

import html
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from geo_mf.data.ids import canonical_ids
from geo_mf.errors import InvalidInput, MissingExtra

if TYPE_CHECKING:
    import pandas as pd

TITLE_WIDTH = 48


@dataclass(frozen=True)
class Because:
    """One item of the history and what it added to a score.

    Attributes:
        id: the item's id, or None for the text that was typed.
        title: what to call it.
        share: what it added to the score, in units of the score.
    """

    id: object
    title: str
    share: float


@dataclass(frozen=True)
class Recommendation:
    """One recommended item. score = behaviour + text.

    Attributes:
        id: the item's id.
        title: what to call it.
        score: bigger is better.
        behaviour: the part of the score that factors gave.
        text: the part of the score that embeddings gave.
        cold: nobody had touched the item when the index was built.
        because: the strongest reasons from the history, strongest first.
    """

    id: object
    title: str
    score: float
    behaviour: float
    text: float
    cold: bool
    because: tuple[Because, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, apart from ids that JSON has no word for."""
        return {
            "item_id": self.id,
            "title": self.title,
            "score": self.score,
            "behaviour": self.behaviour,
            "text": self.text,
            "cold": self.cold,
            "because": [{"item_id": b.id, "title": b.title, "share": b.share} for b in self.because],
        }


@dataclass(frozen=True, repr=False)
class Recommendations:
    """Items, best first. Prints as a table, also in a notebook.

    Best first is by score, unless a re-ranker chose the order: it leaves the scores as they are, and they may rise.

    Attributes:
        items: the recommendations.
        asked: how many were asked for.
        reason: why there are fewer than that, or what a re-ranker was asked for and could not give; else "".
    """

    items: tuple[Recommendation, ...]
    asked: int
    reason: str = ""

    @property
    def ids(self) -> list[Any]:
        """The items' ids, best first."""
        return [item.id for item in self.items]

    @property
    def scores(self) -> list[float]:
        """The items' scores, best first."""
        return [item.score for item in self.items]

    @property
    def titles(self) -> list[str]:
        """The items' titles, best first."""
        return [item.title for item in self.items]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Recommendation]:
        return iter(self.items)

    def __getitem__(self, place: int) -> Recommendation:
        return self.items[place]

    def to_dict(self) -> dict[str, Any]:
        """The list as plain values, for JSON."""
        return {"items": [item.to_dict() for item in self.items], "asked": self.asked, "reason": self.reason}

    def to_arrow(self) -> pa.Table:
        """One row an item; `because` is a list of structs without the ids."""
        because = [[{"title": b.title, "share": b.share} for b in item.because] for item in self.items]
        kinds = {"title": pa.string(), "score": pa.float64(), "behaviour": pa.float64(), "text": pa.float64()}
        kinds |= {"cold": pa.bool_()}
        columns = {"item_id": canonical_ids(self.ids)}
        columns |= {name: pa.array([getattr(item, name) for item in self.items], kind) for name, kind in kinds.items()}
        reasons = pa.list_(pa.struct([("title", pa.string()), ("share", pa.float64())]))
        return pa.table(columns | {"because": pa.array(because, reasons)})

    def to_pandas(self) -> "pd.DataFrame":
        """`to_arrow` as a pandas frame. Raises MissingExtra without pandas."""
        try:
            import pandas as pd
        except ImportError as error:
            raise MissingExtra("to_pandas needs pandas: pip install pandas") from error
        table = self.to_arrow()
        return pd.DataFrame({name: table.column(name).to_pylist() for name in table.column_names})

    def __str__(self) -> str:
        header = ("#", "item", "title", "score", "behaviour", "text", "because")
        lines = [header, *self._cells()]
        widths = [max(len(line[column]) for line in lines) for column in range(len(header))]
        right = {0, 3, 4, 5}
        text = [
            "  ".join(
                cell.rjust(widths[column]) if column in right else cell.ljust(widths[column])
                for column, cell in enumerate(line)
            ).rstrip()
            for line in lines
        ]
        return "\n".join(text + ([self.reason] if self.reason else []))

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("", "item", "title", "score", "behaviour", "text", "because"))
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in line) + "</tr>" for line in self._cells()
        )
        note = f"<caption>{html.escape(self.reason)}</caption>" if self.reason else ""
        return f"<table>{note}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"

    def _cells(self) -> list[tuple[str, ...]]:
        return [
            (
                str(place),
                " ".join(str(item.id).split()),
                _short(item.title) + (" (new)" if item.cold else ""),
                f"{item.score:.3f}",
                f"{item.behaviour:.3f}",
                f"{item.text:.3f}",
                "; ".join(f"{_short(b.title, 28)} ({b.share:+.2f})" for b in item.because),
            )
            for place, item in enumerate(self.items, 1)
        ]


def shortage(k: int, found: int, where: str | None, seen: int) -> str:
    """Why a list is shorter than the k asked for; "" when it is not."""
    if found == k:
        return ""
    limits = [f"where {where!r}"] if where is not None else []
    limits += [f"the {seen} already seen left out"] if seen else []
    return f"{found} of {k}: no other item is allowed" + (f" ({', '.join(limits)})" if limits else "")


def _short(text: str, width: int = TITLE_WIDTH) -> str:
    one_line = " ".join(text.split())
    return one_line if len(one_line) <= width else one_line[: width - 1] + "…"


def check_k(k: int) -> None:
    """InvalidInput unless k is a length that a list can have."""
    if isinstance(k, bool) or not isinstance(k, (int, np.integer)) or k < 1:
        raise InvalidInput(f"k is {k!r}; expected a whole number of at least 1")
