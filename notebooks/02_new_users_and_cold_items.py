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
# # New users and cold items
#
# **The question:** what does a reader get who has never been here, and who gets an article that nobody has read?
#
# A recommender that learns from behaviour alone has no answer to either. This one has read the texts too.
#
# The data is the bundled sample: 300 short articles, and 400 **simulated** readers. To run the notebook on real people,
# name a folder in the environment variable `GEO_MF_DATA` that holds
# [MovieLens](https://grouplens.org/datasets/movielens/latest/) as `ml-latest-small`.

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
    group_name, groups = "genres", [genres.split("|")[0] for genres in catalog.table["genres"].to_pylist()]
    sentence, clicks, where = "a slow film about memory", ["260", "1196", "541"], "'Sci-Fi' in genres"
else:
    interactions = gm.read_interactions(sample.interactions_path())
    catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
    group_name, groups = "topics", catalog.table["topic"].to_pylist()
    sentence, where = "growing vegetables in a small garden", "year >= 2020"
    clicks = ["compost-carbon-nitrogen", "tomato-blight", "five-hundred-rule"]

rec = gm.build(interactions, catalog, out=Path(tempfile.mkdtemp()) / "articles", config=gm.BuildConfig(factors=32))
print(rec)

# %% [markdown]
# ## Somebody types one sentence
#
# No history, no account. The sentence is encoded like an article. That gives the *text* part of each score directly. It
# also gives a *behaviour* part: the index has learned which factors go with which texts (this map is called the
# *prior*).

# %%
rec.recommend(text=sentence, k=5)

# %% [markdown]
# ## Somebody clicks three times
#
# Three clicks are a history, if a short one. The new reader's factor is solved from them in the same way as every known
# reader's was: nothing has to be trained again. Look at *because* to see which click brought which answer.

# %%
rec.recommend(history=clicks, k=5)

# %% [markdown]
# Clicks, a sentence and a condition go together in one call.

# %%
rec.recommend(history=clicks, text=sentence, where=where, k=5)

# %% [markdown]
# ## Articles that nobody has read
#
# Some articles of the catalogue have no reader at all. Here are three of them, on the map of the *texts*.

# %%
cold = np.flatnonzero(rec.cold)
shown = cold[:3] if real else catalog.items.rows(["dynamic-currency-conversion", "balcony-solar", "sonata-form"])
plot.space_map(
    rec.embeddings,
    groups,
    rec.titles,
    mark=shown.tolist(),
    highlight=list(dict.fromkeys(groups[row] for row in shown)),
    label_name=group_name,
    title="Nobody has read the three ringed articles",
)

# %% [markdown]
# **What to see:** each ringed article lies among the others of its own topic; the encoder put it there by its words
# alone.
#
# From that place the article gets a factor, and with it the readers it would reach first. Do they care for its topic?

# %%
attention = np.asarray(rec.history.sum(axis=1)).ravel()
for row in shown:
    readers = rec.users.rows([user for user, _ in rec.audience(catalog.items.id(row), k=20)])
    on_topic = np.array([group == groups[row] for group in groups], np.float32)
    share = rec.history @ on_topic / attention
    print(rec.titles[row])
    print(
        f"   {groups[row]}: {share[readers].mean():.0%} of what its 20 readers read, {share.mean():.0%} of all reading"
    )

# %% [markdown]
# **What to see:** the readers whom an unread article would reach spend several times as much of their attention on its
# topic as readers do on the whole.
#
# ## Does it hold up?
#
# Take every fifth article away from all readers, build without those interactions, and rank the articles that were
# taken away for each reader. Nobody has touched them, so *popularity* knows nothing and ranks them by chance.

# %%
from geo_mf.evaluation.split import cold_items_split

split = cold_items_split(interactions, 0.2, seed=0)
report = gm.evaluate(gm.BuildConfig(factors=32), split, catalog=catalog, k=10, lists=["cold"])
plot.bar_metrics(report, "ndcg", "cold", title="NDCG@10 among articles that nobody has read")

# %% [markdown]
# **What to see:** everything that reads the texts finds the right readers clearly better than chance does. On articles
# without any behaviour the blend cannot know more than the texts say, so it stands close to *content kNN*.
#
# Next: [the two spaces](03_two_spaces.ipynb), side by side.
