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
# # Choosing the blend
#
# **The question:** how much should behaviour count, and how much text?
#
# Every score of an index is a sum: `a` times *behaviour* (the factors) plus `b` times *text* (the embeddings). Both
# weights belong to the question, not to the index: to change them, nothing has to be built again. A build learns a
# default for each length of history. This notebook shows what there is to choose from.
#
# The data is the bundled sample: 300 short articles, and 400 **simulated** readers. To run the notebook on real people,
# name a folder in the environment variable `GEO_MF_DATA` that holds
# [MovieLens](https://grouplens.org/datasets/movielens/latest/) as `ml-latest-small`.

# %%
import os
from pathlib import Path

import numpy as np

import geo_mf as gm
from geo_mf import plot
from geo_mf.data import sample

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
# ## New readers, whose answers are known
#
# Take a fifth of the readers away before the build. To the index they are new. Show it the first 1, 3 or 10 things each
# of them read, ask for ten more, and see how many of the ten the reader did read.

# %%
rng = np.random.default_rng(0)
new = rng.permutation(len(interactions.users))[: len(interactions.users) // 5]
rec = gm.build(interactions.select(~np.isin(interactions.user_rows, new)), catalog, config=gm.BuildConfig(factors=32))
people = []
for reader in new:
    rows = interactions.item_rows[interactions.user_rows == reader]
    people.append([item for item in interactions.items.take(rng.permutation(rows)) if item in rec.catalog.items])
print(f"{rec}\n{len(people)} new readers")


# %%
def kept(clicks, share):
    """For each new reader, the share of the ten that they did read, with this share of text in the blend."""
    able = [read for read in people if len(read) >= clicks + 10]
    lists = [rec.recommend(history=read[:clicks], k=10, weights=(1 - share, share)) for read in able]
    return np.array([len(set(ten.ids) & set(read[clicks:])) / 10 for read, ten in zip(able, lists, strict=True)])


shares = np.linspace(0, 1, 11)
curves = {}
for clicks in (1, 3, 10):
    each = np.array([kept(clicks, share) for share in shares])
    half = 1.96 * each.std(axis=1) / np.sqrt(each.shape[1])
    curves[f"after {clicks} clicks" if clicks > 1 else "after 1 click"] = np.stack(
        [each.mean(axis=1), each.mean(axis=1) - half, each.mean(axis=1) + half], axis=1
    )
plot.validation_curve(
    shares,
    curves,
    setting="share of text",
    metric="share of the ten that were read",
    title="How much text should count",
)

# %% [markdown]
# **What to see:** here every line is highest at or near the left: behaviour knows more than words after one click, for
# the index learned from the other readers what goes with that click. More clicks lift the left end and hardly the
# right one: a second and a third article say more about taste than about wording. Where bands overlap, no difference
# is certain.
#
# ## What the build had learned
#
# A build plays the same game with its own readers. These are the weights that it came to, by the number of clicks.

# %%
for clicks in (1, 3, 10, 30):
    learned = rec.blend.weights(clicks, typed=False)
    print(f"{clicks:3d} clicks: behaviour {learned.behaviour:.2f}, text {learned.text:.2f}")

# %% [markdown]
# The build came to the same answer for readers with clicks. Text still decides where there is no behaviour to go by:
# for a sentence, and for articles that nobody has read. On other data the weights come out differently; look at yours.
#
# `weights=` overrules them for one question: `rec.recommend(history=clicks, weights=(1, 0))` for behaviour alone, or
# `(0, 1)` for a reader who wants more of the same subject, whoever else reads it.
#
# Next: [choosing the rank](05_choosing_the_rank.ipynb).
