"""Building: what goes in is counted, what comes out is the same every time, and nothing half-done is left."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from conftest import SIZE, board, small_catalog, small_interactions
from scipy import sparse

import geo_mf as gm
from geo_mf.builder.learning import learn
from geo_mf.builder.trial import Described, with_cold_factors
from geo_mf.errors import FitDiverged, InvalidInput
from geo_mf.geometry.predictor import Predictor

ENCODER = gm.HashEncoder(dim=32)
QUICK: dict[str, Any] = {"factors": 8, "iterations": 2, "cache": False, "learn_blend": False}


def quick(interactions: gm.Interactions, catalog: gm.Catalog | None = None, **settings: Any) -> gm.Recommender:
    return gm.build(interactions, catalog, config=gm.BuildConfig.of(**QUICK | settings), encoder=ENCODER)


class Refusing:
    """An encoder that does not work."""

    dim, fingerprint, name = 4, "0" * 64, "refusing"

    def encode(self, texts: Sequence[str], *, kind: str = "document", show_progress: bool = False) -> np.ndarray:
        raise InvalidInput("no text is read here")

    def spec(self) -> dict[str, Any]:
        return {"kind": "refusing"}


# --- what is counted ---------------------------------------------------------------------------------------------


def test_the_card_counts_what_went_in(recommender: gm.Recommender) -> None:
    card = dict(recommender.card)
    seconds, config, index = card.pop("seconds"), card.pop("config"), card.pop("index")
    assert card == {
        "users": SIZE,
        "items": SIZE + 3,
        "cold_items": 3,
        "items_without_text": 1,
        "interactions": SIZE * (SIZE // 2 - 1),
        "unlisted_interactions": 1,
        "weight_mean": pytest.approx(
            np.log1p(1 + np.indices((SIZE, SIZE)).sum(0) % 3)[board(SIZE).toarray() > 0].mean()
        ),
        "newest": None,
        "encoded_texts": 16,
        "read": f"{SIZE * (SIZE // 2 - 1) + 1} rows read, {SIZE * (SIZE // 2 - 1) + 1} accepted",
        "encoder_name": "hash-32",
        "recall_at_10": 1.0,
    }
    assert (index["factory"], index["recall_at_10"], index["recall_at_100"]) == ("Flat", 1.0, 1.0)
    assert index["target_holds"]
    assert set(index["by_query"]) >= {"known users", "sentences", "3 clicks", "behaviour 0.25, text 0.75"}
    assert config["factors"] == 8
    assert all(value >= 0 for value in seconds.values())
    json.dumps(recommender.card, allow_nan=False)


def test_without_a_catalogue_the_items_are_those_of_the_interactions() -> None:
    interactions = gm.Interactions.from_arrays([1, 1, 2, 2], ["a", "b", "b", "c"])
    rec = gm.build(interactions, config=gm.BuildConfig.of(**QUICK))  # the default encoder is not needed, nor its model
    assert rec.catalog.items.ids.to_pylist() == ["a", "b", "c"]
    assert rec.titles == ["a", "b", "c"]
    assert rec.embeddings.shape == (3, 1)
    assert rec.recommend(1).ids == ["c"]
    assert rec.card["encoded_texts"] == 0
    assert rec.card["items_without_text"] == 3


def test_ids_of_another_type_are_shown_from_both_sides() -> None:
    interactions = gm.Interactions.from_arrays([1, 2, 3], [10, 20, 30])
    with pytest.raises(InvalidInput, match=r"3 were given, 3 of them .*such as \['i0', 'i1', 'i2'\].*\[10, 20, 30\]"):
        quick(interactions, small_catalog())


@pytest.mark.parametrize("weights", [None, [0.0, 0.0]])
def test_nothing_to_learn_from(weights: Any) -> None:
    items = ["i1", "i2"] if weights else []
    interactions = gm.Interactions.from_arrays([1, 2][: len(items)], items, weights)
    with pytest.raises(InvalidInput, match="no interaction is left to learn from"):
        quick(interactions, small_catalog())
    with pytest.raises(InvalidInput, match="no interaction is left to learn from"):
        quick(interactions)


def test_users_with_nothing_left_are_not_known() -> None:
    known = small_interactions()
    users, items = known.users.take(known.user_rows), known.items.take(known.item_rows)
    weights = np.r_[known.weights, 1.0, 0.0]
    rec = quick(gm.Interactions.from_arrays([*users, 1, 2], [*items, "unlisted", "i2"], weights), small_catalog())
    assert sorted(rec.users.ids.to_pylist()) == list(range(100, 100 + SIZE))
    assert len(rec.history.indptr) == SIZE + 1


def test_what_a_weight_means() -> None:
    given = small_interactions().align(items=small_catalog().items)[0].to_csr()
    assert set(given.data.tolist()) == {1, 2, 3}
    wanted = {"linear": given.data, "log": np.log1p(given.data), "uniform": np.ones(given.nnz)}
    for weighting, weights in wanted.items():
        found = quick(small_interactions(), small_catalog(), weighting=weighting).history
        assert np.array_equal(found.indices, given.indices)
        assert found.data == pytest.approx(weights / weights.mean(), rel=1e-6)


def test_dislikes_are_refused_whatever_a_weight_means() -> None:
    interactions = gm.Interactions.from_arrays([1, 2], ["a", "b"], np.asarray([1.0, -2.0]), allow_negative=True)
    for weighting in ("log", "linear", "uniform"):
        with pytest.raises(InvalidInput, match=r"negative weight \(-2\).*min_weight"):
            quick(interactions, weighting=weighting)


def test_the_smallest_data() -> None:
    catalog = small_catalog().take([0, 1, 26])
    for users, items in (([1], ["i0"]), ([1, 1], ["i0", "i1"]), ([1, 2], ["i0", "i0"])):
        rec = quick(gm.Interactions.from_arrays(users, items), catalog, learn_blend=True)
        assert np.isfinite(rec.vectors).all()
        assert len(rec.recommend(1, exclude_seen=False)) == 3


# --- texts -------------------------------------------------------------------------------------------------------


def test_empty_texts_are_zero_and_equal_texts_are_equal(recommender: gm.Recommender) -> None:
    texts, embeddings = recommender.catalog.texts, recommender.embeddings
    assert texts[0] == texts[16]
    assert np.array_equal(embeddings[0], embeddings[16])
    assert not embeddings[texts.index("")].any()
    assert np.linalg.norm(embeddings[:-1], axis=1) == pytest.approx(1, abs=1e-6)


def test_the_second_build_encodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GEO_MF_CACHE", str(tmp_path))
    first, second = (quick(small_interactions(), small_catalog(), cache=True) for _ in range(2))
    assert [rec.card["encoded_texts"] for rec in (first, second)] == [16, 0]
    assert np.array_equal(first.embeddings, second.embeddings)
    assert quick(small_interactions(), small_catalog()).card["encoded_texts"] == 16, "and without a cache, all again"


def test_the_encoder_may_be_named() -> None:
    interactions = gm.Interactions.from_arrays([1, 2], ["i0", "i1"])
    rec = gm.build(interactions, small_catalog(), config=gm.BuildConfig.of(**QUICK, encoder="hash"))
    assert rec.encoder.name == gm.HashEncoder().name
    assert rec.fingerprint == gm.HashEncoder().fingerprint


# --- the same input, the same bytes ------------------------------------------------------------------------------


def built(out: Path, **settings: Any) -> dict[str, bytes]:
    """The files of a published build, by name; of the manifest only what does not tell the time."""
    config = gm.BuildConfig.of(**QUICK | {"learn_blend": True} | settings)
    gm.build(small_interactions(), small_catalog(), out=out, config=config, encoder=ENCODER)
    (version,) = (folder for folder in out.iterdir() if folder.name.startswith("v"))
    files = {path.name: path.read_bytes() for path in version.iterdir() if path.name != "SEAL"}
    manifest = json.loads(files["manifest.json"])
    del manifest["created"], manifest["meta"]["card"]["seconds"], manifest["meta"]["card"]["config"]
    for name in ("queries_per_second", "single_ms", "seconds"):
        del manifest["meta"]["card"]["index"][name]
    return files | {"manifest.json": json.dumps(manifest).encode()}


def test_the_same_input_and_seed_give_the_same_bytes(tmp_path: Path) -> None:
    first, again = built(tmp_path / "a"), built(tmp_path / "b")
    assert len(first) > 10
    assert first == again
    assert built(tmp_path / "c", threads=1) == first
    other = built(tmp_path / "d", seed=1)
    assert {name for name in first if other[name] != first[name]} >= {"user_factors.npy", "item_factors.npy"}
    assert other["embeddings.npy"] == first["embeddings.npy"]


def test_the_blend_is_learned_from_interactions_held_out() -> None:
    # Readers keep to one of 20 topics and have met few of its items; either the text tells the topic, or it is noise.
    rng = np.random.default_rng(0)
    topics = np.arange(200) % 20
    rows, columns = [], []
    for user in range(400):
        chosen = rng.choice(np.flatnonzero(topics == user % 20), 3, replace=False)
        rows += [user] * 3
        columns += chosen.tolist()
    matrix = sparse.csr_array((np.ones(len(rows), np.float32), (rows, columns)), shape=(400, 200))
    told = np.eye(20, dtype=np.float32)[topics]
    noise = np.eye(20, dtype=np.float32)[rng.permutation(topics)]
    config = gm.BuildConfig.of(factors=8, iterations=4)
    by_text, by_noise = (learn(matrix, Described(rows, rows), config).blend for rows in (told, noise))
    assert by_text.weights(3, typed=False).text >= 0.5
    assert by_noise.weights(3, typed=False).text <= 0.1
    assert by_text.weights(3, typed=False).behaviour == 1
    assert learn(matrix, Described(told, told), config).blend == by_text
    assert matrix.nnz == 1200, "the input is left as it was"
    # The more is expected of cold items, the higher they stand; of nothing, nothing is given.
    scales = [
        learn(matrix, Described(told, told), config.model_copy(update={"cold_share": share})).blend.cold_scale
        for share in (0, 0.5, 1)
    ]
    assert scales == sorted(scales)
    assert scales[0] < scales[-1]


def test_cold_items_stand_at_their_scaled_prior(checkerboard: sparse.csr_array) -> None:
    cold = sparse.csr_array(sparse.hstack([checkerboard, sparse.csr_array((40, 2))]))
    features = np.eye(2, dtype=np.float32)[np.arange(42) % 2]
    features[41] = 0
    model = gm.IALS(8, iterations=2, random_state=0).fit(cold, features)
    assert model.prior_coefficients is not None
    prior = Predictor.linear(model.prior_coefficients)
    factors = with_cold_factors(model.item_factors, cold, features, prior, 2.5)
    assert np.array_equal(factors[:40], model.item_factors[:40])
    assert factors[40] == pytest.approx(2.5 * model.item_prior(features[40])[0], rel=1e-5)
    assert not factors[41].any()
    assert not np.array_equal(model.item_factors[40], factors[40]), "the model's own table is left alone"


# --- nothing half-done -------------------------------------------------------------------------------------------


def test_a_bad_name_is_told_before_the_work(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="'Bad Name' is not a name for an index"):
        gm.build(small_interactions(), small_catalog(), out=tmp_path / "Bad Name", encoder=Refusing())


def test_a_build_that_fails_leaves_the_old_index_and_no_rubbish(tmp_path: Path) -> None:
    out = tmp_path / "index"
    before = built(out)
    with pytest.raises(InvalidInput, match="no text is read here"):
        gm.build(small_interactions(), small_catalog(), out=out, config=gm.BuildConfig.of(**QUICK), encoder=Refusing())
    huge = gm.Interactions.from_arrays([1, 1, 2], ["i0", "i2", "i1"], np.asarray([1.0, 1e-38, 3e38]))
    with pytest.raises(FitDiverged):
        config = gm.BuildConfig.of(**QUICK | {"weighting": "linear", "regularization": 1e-30, "unobserved_weight": 0})
        gm.build(huge, small_catalog(), out=out, config=config, encoder=ENCODER)
    assert sorted(path.name for path in out.iterdir()) == [".lock", "CURRENT", "v000001"]
    assert all((out / "v000001" / name).read_bytes() == before[name] for name in before if name != "manifest.json")
    with pytest.raises(InvalidInput, match="no text is read here"):
        gm.build(small_interactions(), small_catalog(), out=tmp_path / "new", encoder=Refusing())
    assert [path.name for path in tmp_path.iterdir()] == ["index"]


def test_progress_goes_to_stderr_and_only_when_asked(capsys: pytest.CaptureFixture[str]) -> None:
    quick(small_interactions(), small_catalog())
    assert capsys.readouterr() == ("", "")
    config = gm.BuildConfig.of(**QUICK)
    gm.build(small_interactions(), small_catalog(), config=config, encoder=ENCODER, show_progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "factorize" in err


# --- settings ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"factors": 0}, "factors is 0: input should be greater than or equal to 1"),
        ({"factors": 2.5}, "factors is 2.5"),
        ({"regularization": 0}, "regularization is 0: input should be greater than 0"),
        ({"regularization": float("nan")}, "regularization is nan"),
        ({"regularization": float("inf")}, "regularization is inf"),
        ({"solver": "lu"}, "solver is 'lu': input should be 'cg' or 'cholesky'"),
        ({"weighting": "square"}, "weighting is 'square'"),
        ({"seed": -1}, "seed is -1"),
        ({"threads": -1}, "threads is -1"),
        ({"factor": 3}, "factor is 3: extra inputs are not permitted.*Settings are: factors, regularization"),
        ({"factors": 0, "nu": 3}, "factors is 0.*; nu is 3"),
    ],
)
def test_a_bad_setting_is_named_with_what_is_allowed(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        gm.BuildConfig.of(**settings)


def test_every_setting_is_documented() -> None:
    source = Path(gm.builder.config.__file__).read_text()
    for name in gm.BuildConfig.model_fields:
        line = source.split(f"\n    {name}: ")[1].split("\n")[1]
        assert line.strip().startswith('"""'), f"{name} has no line that says what it is"
