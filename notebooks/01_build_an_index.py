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
# # Build an index
#
# **The question:** how do a log of who read what and a catalogue of texts become an index, and is it any good?
#
# You need two tables. The *interactions* say who touched what: `user_id, item_id`, and perhaps a weight and a date. The
# *catalogue* says what the items are: `item_id`, some text, any other columns. From them geo_mf learns a *factor* for
# every reader and every article, from behaviour alone, and reads an *embedding* of every text with a sentence encoder.
# Both go into one index.
#
# The data below is the bundled sample: 300 short articles, and 400 readers who are **simulated**. The figures show
# that the program works, not how well it would serve people. To run the notebook on real people, name a folder in the
# environment variable `GEO_MF_DATA` that holds [MovieLens](https://grouplens.org/datasets/movielens/latest/) as
# `ml-latest-small`.

# %%
import os
import tempfile
from pathlib import Path

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
    reader, where = "42", "'Comedy' in genres"
else:
    interactions = gm.read_interactions(sample.interactions_path())
    catalog = gm.read_catalog(sample.articles_path(), text="{title}. {text}")
    group_name, groups = "topics", catalog.table["topic"].to_pylist()
    reader, where = "reader-052", "year >= 2020"

print(interactions.report.summary())
print(catalog.report.summary())

# %% [markdown]
# Every row was accounted for: a row that cannot be used is counted, with its line and the reason, and never lost in
# silence.
#
# ## Build
#
# One call encodes the texts, learns the factors, finds out how much the text should count, builds the index and
# publishes it as a folder. Here that is a temporary folder; yours would be something like `indexes/articles`. A factor
# of 32 numbers is long enough for a few hundred articles (the default is 128).

# %%
config = gm.BuildConfig(factors=32)
out = Path(tempfile.mkdtemp()) / "articles"
rec = gm.build(interactions, catalog, out=out, config=config)
print(rec)

# %% [markdown]
# *Cold* items are those that nobody has touched. They are in the index all the same: their text speaks for them. The
# next notebook is about them.
#
# The index is a folder of checked files. Anybody can load it again, and it answers the same.

# %%
rec = gm.load(out)
rec.recommend(reader, k=5)

# %% [markdown]
# Each score is a sum of two parts: *behaviour* (people who read what this reader read also read this) and *text* (it is
# worded like what this reader read). *because* names the articles of the reader's own history that added most.
#
# A condition on the catalogue's columns acts inside the search, so there are still five answers.

# %%
rec.recommend(reader, k=5, where=where)

# %% [markdown]
# ## Look at the space
#
# Articles that the same people read get similar factors. The map lays these factors flat.

# %%
warm = ~rec.cold
plot.space_map(
    rec.item_factors[warm],
    [group for group, touched in zip(groups, warm, strict=True) if touched],
    label_name=group_name,
    title="Read by the same people, close together",
)

# %% [markdown]
# **What to see:** articles on one topic lie together, although topics were never given to the factorization; it knows
# who read what. Two directions hold only a little of 32, so neighbours on the map need not be neighbours in the space.
#
# ## Is it any good?
#
# Hide the last fifth of the interactions, build from the rest, and see how well the hidden ones are found. NDCG@10 is 1
# when a reader's hidden articles stand at the top of the ten that are shown, and 0 when none is among them. Two simple
# rankings stand beside the model: the most read articles for everyone (*popularity*), and the articles worded most like
# the reader's own (*content kNN*).

# %%
from geo_mf.evaluation.split import temporal_split

report = gm.evaluate(config, temporal_split(interactions, 0.2), catalog=catalog, k=10)
plot.bar_metrics(report, "ndcg", title="NDCG@10: how well hidden articles are found")

# %% [markdown]
# **What to see:** behaviour alone (*factors*) and text alone (*content kNN*) both beat the list of the most popular,
# and the index that holds both (*blend*) is as good as the better of them.
#
# Next: [new users and cold items](02_new_users_and_cold_items.ipynb), then [the two spaces](03_two_spaces.ipynb).
