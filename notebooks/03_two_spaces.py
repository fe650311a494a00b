# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Two spaces
#
# **The question:** what does behaviour know that text does not, and the other way round?
#
# An index holds two vectors of every article. Its *factor* was learned from who read it. Its *embedding* was read from
# its words. Nothing forces the two to agree. `gm.compare` says how far they do, where they do not, and which of them is
# right.
#
# The data is the bundled sample: 300 short articles, and 400 **simulated** readers. The simulated readers also follow
# tastes that no text tells, so the spaces differ here by design. To run the notebook on real people, name a folder in
# the environment variable `GEO_MF_DATA` that holds [MovieLens](https://grouplens.org/datasets/movielens/latest/) as
# `ml-latest-small`.

# %%
import os
from pathlib import Path

import numpy as np

import geo_mf as gm
from geo_mf import plot
from geo_mf.data import sample
from geo_mf.evaluation.split import random_split

real = os.environ.get("GEO_MF_DATA")
if real:
    movielens = Path(real) / "ml-latest-small"
    interactions = gm.read_interactions(
        movielens / "ratings.csv", user_col="userId", item_col="movieId", weight_col="rating", min_weight=4
    )
    catalog = gm.read_catalog(movielens / "movies.csv", item_col="movieId", text="{title}. {genres}")
    group_name, every_group = "genres", [genres.split("|")[0] for genres in catalog.table["genres"].to_pylist()]
else:
    interactions = gm.read_interactions(sample.interactions_path())
    catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
    group_name, every_group = "topics", catalog.table["topic"].to_pylist()

# %% [markdown]
# ## Two sets of vectors
#
# A fifth of the reading is held out: neither space sees it, and later it decides who is right. The factors are fitted
# to the rest, and here to nothing else. (Inside an index text takes part in the fit, which makes better factors, and a
# blurred comparison; `gm.compare_index` compares those.)

# %%
split = random_split(interactions, 0.2, seed=0)
reading = split.train.align(items=catalog.items)[0].to_csr()
factors = gm.IALS(factors=32).fit(reading).item_factors
embeddings = gm.SentenceEncoder().encode(catalog.texts)

found = gm.compare(
    factors,
    embeddings,
    ids=catalog.items,
    titles=catalog.titles,
    interactions=split.test,
    counts=np.bincount(reading.indices, minlength=len(catalog)),
)
found

# %% [markdown]
# **What to see:** the sentences at the top are computed from the tables below them. The two spaces share far more
# neighbours than chance would give, and far fewer than all: each knows something that the other does not. Hardly
# anything of one can be read from the other by a straight line.
#
# ## Side by side
#
# Articles that nobody has read have no place on the left; they are left out on both sides. The numbered articles stand
# elsewhere by their words than by their readers.

# %%
rows = np.flatnonzero(factors.any(axis=1) & embeddings.any(axis=1))
plot.two_maps(
    factors[rows],
    embeddings[rows],
    [every_group[row] for row in rows],
    [catalog.titles[row] for row in rows],
    label_name=group_name,
    movers=4,
)

# %% [markdown]
# **What to see:** both maps know the topics, but the patches differ in size, in place and in what they touch. The right
# map was laid over the left one as well as it can be: an arrow is what is left.
#
# ## Neighbours
#
# A map shows two directions of many. Neighbours use them all.

# %%
plot.overlap_curve(found.overlaps)

# %% [markdown]
# **What to see:** the solid line is several times as high as the dashed one for few neighbours, and nears it for many.
# The spaces agree on who is close, hardly on who is farther away.
#
# ## Who is right?
#
# Two articles that one reader read in the held-out part should lie close. Each space is asked for the twenty articles
# nearest to the one: is the other among them? The answer depends on how often an article had been read before.

# %%
plot.crossover(found.who_is_right, found.names)

# %% [markdown]
# **What to see:** the more an article has been read, the more its factor knows; its words know no more. Where few have
# read it, the bars of the two spaces overlap: no difference is certain there. Were there a number of readers from which
# on factors find more, a dotted line would mark it. On MovieLens there is one, at about nine readers: below it, a film
# is better found by its words.
#
# ## Where they disagree

# %%
for pair in found.disagreement.near_in_first[:3]:
    print(f"read together, worded apart:  {pair.item.title}  |  {pair.other.title}")
for pair in found.disagreement.near_in_second[:3]:
    print(f"worded alike, read apart:     {pair.item.title}  |  {pair.other.title}")

# %% [markdown]
# ## How many directions does each space use?

# %%
plot.spectrum(factors[rows], embeddings[rows])

# %% [markdown]
# **What to see:** neither curve bends early. Tastes and meanings are spread over many directions, and no handful of
# them would do.
#
# This is why an index keeps both vectors side by side, and lets each query say how much either should count:
# `rec.recommend(..., weights=(1, 0))` is behaviour alone, `weights=(0, 1)` is text alone.
# For all of this of an index of yours, on one page that can be sent to others: `geo-mf compare indexes/movies --out
# report.html`.
#
# Next: [choosing the blend](04_choosing_the_blend.ipynb).
