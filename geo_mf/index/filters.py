"""What a query must not return, kept inside the search: the same way for every index."""

from collections.abc import Callable

import numpy as np

from geo_mf.index.exact import Hits, Search

__all__ = ["Top", "search_filtered"]

Top = Callable[[np.ndarray, int, np.ndarray | None], tuple[np.ndarray, np.ndarray]]
"""Queries, k and a mask of allowed rows to rows int64 and scores float32 [q, at most k], in no promised order; a line
that is too short ends with scores of -inf."""

# In a batch it is cheaper to ask for k + |excluded| rows, and to drop the excluded, than to give each query a selector;
# up to here.
OVERFETCH = 1024
BLOCK_CANDIDATES = 2**22  # candidates held at once


def search_filtered(ask: Search, size: int, top: Top) -> Hits:
    """Answer a checked call on an index of `size` rows, by what finds the best of the allowed rows."""
    if ask.exclude is None:
        return Hits.best(*top(ask.queries, ask.k, ask.allowed), ask.k)
    exclude = ask.exclude
    hits = Hits(
        np.full((len(ask.queries), ask.k), -1, np.int32), np.full((len(ask.queries), ask.k), -np.inf, np.float32)
    )
    lengths = np.array([len(rows) for rows in exclude], np.int64)
    together = lengths <= OVERFETCH
    for j in np.flatnonzero(~together):
        mask = np.ones(size, bool) if ask.allowed is None else ask.allowed.copy()
        mask[exclude[j]] = False
        alone = Hits.best(*top(ask.queries[j : j + 1], ask.k, mask), ask.k)
        hits.rows[j], hits.scores[j] = alone.rows[0], alone.scores[0]
    # Histories of like length go together: the longest of a block says how many more its queries are asked for.
    batch = np.flatnonzero(together)
    batch = batch[np.argsort(lengths[batch], kind="stable")]
    step = max(1, BLOCK_CANDIDATES // min(size + 1, ask.k + OVERFETCH))
    for start in range(0, len(batch), step):
        block = batch[start : start + step]
        rows, scores = top(ask.queries[block], ask.k + int(lengths[block].max()), ask.allowed)
        withheld = np.concatenate([exclude[j] for j in block])
        # (query, row) as one number: both lists hold each pair once.
        line = np.arange(len(block), dtype=np.int64) * size
        scores[np.isin(rows + line[:, None], withheld + np.repeat(line, lengths[block]))] = -np.inf
        best = Hits.best(rows, scores, ask.k)
        hits.rows[block], hits.scores[block] = best.rows, best.scores
    return hits
