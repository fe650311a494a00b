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
# # Two spaces: a first look
#
# **The question:** do behaviour and text agree about which articles belong together?
#
# An index holds two vectors of every article. Its *factor* was learned from who read it. Its *embedding* was read from
# its words. Nothing forces the two to agree.
#
# The data is the bundled sample: 300 short articles, and 400 **simulated** readers. The simulated readers also follow
# tastes that no text tells, so the spaces differ here by design. To run the notebook on real people, name a folder in
# the environment variable `GEO_MF_DATA` that holds [MovieLens](https://grouplens.org/datasets/movielens/latest/) as
# `ml-latest-small`.

# %%
import os
import tempfile
from pathlib import Path

import numpy as np

import geo_mf as gm
from geo_mf import plot
from geo_mf.data import sample

real = os.environ.get("GEO_MF_DATA")
if real:
    movielens = Path(real) / "ml-latest-small"
    interactions = gm.read_interactions(
        movielens / "ratings.csv",
        user_col="userId",
        item_col="movieId",
        weight_col="rating",
        datetime_col="timestamp",
        min_weight=4,
    )
    catalog = gm.read_catalog(movielens / "movies.csv", item_col="movieId", text="{title}. {genres}")
    group_name, every_group = "genres", [genres.split("|")[0] for genres in catalog.table["genres"].to_pylist()]
else:
    interactions = gm.read_interactions(sample.interactions_path())
    catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
    group_name, every_group = "topics", catalog.table["topic"].to_pylist()

rec = gm.build(interactions, catalog, out=Path(tempfile.mkdtemp()) / "articles", config=gm.BuildConfig(factors=32))

# An article that nobody has read has no behaviour to compare with.
rows = np.flatnonzero(~rec.cold & rec.embeddings.any(axis=1))
factors, embeddings = rec.item_factors[rows], rec.embeddings[rows]
groups, titles = [every_group[row] for row in rows], [rec.titles[row] for row in rows]
print(f"{len(rows):,} articles: factors of {factors.shape[1]} numbers, embeddings of {embeddings.shape[1]}")

# %% [markdown]
# ## Side by side

# %%
plot.two_maps(factors, embeddings, groups, label_name=group_name)

# %% [markdown]
# **What to see:** both maps know the topics, but the patches differ in size, in place and in what they touch. The right
# map was turned to lie over the left one as well as it can: where a topic still moves, the spaces disagree about what
# it is close to.
#
# ## Neighbours
#
# A map shows two directions of many. Neighbours use them all: for each article, take the ten nearest in each space. How
# many of the ten are the same? How many are on the article's own topic?


# %%
def neighbours(vectors, k=10):
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    itself = [np.array([row]) for row in range(len(unit))]
    return gm.ExactIndex(unit).search(unit, k, exclude=itself).rows


by_reading, by_text = neighbours(factors), neighbours(embeddings)
shared = np.array([len(np.intersect1d(a, b)) for a, b in zip(by_reading, by_text, strict=True)])
label = np.array(groups)
print(f"shared by both spaces     {shared.mean() / 10:4.0%}   (by chance {10 / (len(rows) - 1):.0%})")
for name, found in (("factors", by_reading), ("text", by_text)):
    print(f"on its own topic, {name:8s}{(label[found] == label[:, None]).mean():4.0%}")

# %% [markdown]
# **What to see:** the spaces share far more neighbours than chance would give, and far fewer than all. Each knows
# something that the other does not.
#
# Here is an article whose words give its topic away although its readers wander, and one whose words mislead although
# its readers are not fooled. The topic of each neighbour stands in brackets.

# %%
text_knows_better = (label[by_text] == label[:, None]).sum(axis=1) - (label[by_reading] == label[:, None]).sum(axis=1)
for row in (int(text_knows_better.argmax()), int(text_knows_better.argmin())):
    print(f"{titles[row]} [{groups[row]}], {shared[row]} of 10 neighbours shared")
    for name, found in (("by reading", by_reading), ("by text", by_text)):
        print(f"   near {name}: " + "; ".join(f"{titles[other]} [{groups[other]}]" for other in found[row][:3]))

# %% [markdown]
# **What to see:** the brackets match the article's own topic in one space and not in the other, once this way round and
# once that way.
#
# ## How many directions does each space use?

# %%
plot.spectrum(factors, embeddings)

# %% [markdown]
# **What to see:** neither curve bends early. Tastes and meanings are spread over many directions, and no handful of
# them would do. The text needs more directions for four fifths of its variance than the factors have in all.
#
# This is why the index keeps both vectors side by side, and lets each query say how much either should count:
# `rec.recommend(..., weights=(1, 0))` is behaviour alone, `weights=(0, 1)` is text alone.
