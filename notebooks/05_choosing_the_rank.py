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
# # Choosing the rank
#
# **The question:** how many numbers should a factor have?
#
# The *rank* is the length of a factor. Too few numbers cannot tell tastes apart. Too many cost memory and time, and on
# little data they learn the accidents of the log. Nobody has to choose: `BuildConfig(factors=None)`, the default, takes
# 128 to 512 by the size of the data. This notebook shows how to look for yourself.
#
# The data is the bundled sample: 300 short articles, and 400 **simulated** readers. To run the notebook on real people,
# name a folder in the environment variable `GEO_MF_DATA` that holds
# [MovieLens](https://grouplens.org/datasets/movielens/latest/) as `ml-latest-small`.

# %%
import os
from pathlib import Path

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
else:
    interactions = gm.read_interactions(sample.interactions_path())
    catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")

# %% [markdown]
# ## Try some
#
# Hold out a fifth of the interactions, fit the rest with one rank after the other, and rank all articles for every
# reader. NDCG@10 is 1 when the held-out articles stand on top, and 0 when none is among the ten.

# %%
split = random_split(interactions, 0.2, seed=0)
ranks = [2, 4, 8, 16, 32, 64, 128]
reports = [
    gm.evaluate(gm.BuildConfig(factors=rank, learn_blend=False), split, catalog=catalog, k=10, lists=["overall"])
    for rank in ranks
]
rows = [report.row("factors", "ndcg") for report in reports]
plot.validation_curve(
    ranks, [(row.value, row.low, row.high) for row in rows], setting="rank", metric="NDCG@10 of the factors"
)

# %% [markdown]
# **What to see:** the line climbs as long as more numbers can tell more tastes apart, and is flat afterwards: where the
# bands overlap, a shorter factor is as good as a longer one, and quicker to search. It does not fall again, because the
# default regularisation grows with the rank.
#
# ## Look at the spectrum
#
# Fit the largest one to everything. How many directions do its factors use?

# %%
rec = gm.build(interactions, catalog, config=gm.BuildConfig(factors=128, learn_blend=False))
warm = ~rec.cold & rec.embeddings.any(axis=1)
plot.spectrum(rec.item_factors[warm], rec.embeddings[warm])

# %% [markdown]
# **What to see:** of 128 directions the factors use about a dozen for four fifths of their variance. That is what the
# readers' tastes need, and why ranks far beyond it added nothing above.
#
# A spectrum shows how much room is used, not whether it is used well: only held-out behaviour tells that. `geo-mf tune`
# searches the rank together with the other settings.
