"""Lists that are steered: candidates, popularity, diversity, reasons, similar items, errors of rows."""

import json

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import pad_jax
from pad_jax.errors import UserError
from pad_jax.serving.directions import diverse
from tests.support.data import histories

pytestmark = pytest.mark.xdist_group("serving")  # its tests share trainings


def by_hand(scores, vectors, k, diversity):
    """Maximal marginal relevance, one user and one pick after the other."""
    places = []
    there = np.isfinite(scores)
    relevance = (scores - scores[there].min()) / (scores[there].max() - scores[there].min())
    while len(places) < k:
        best = None
        for place in range(len(scores)):
            if place in places or not there[place]:
                continue
            closest = max((vectors[place] @ vectors[other] for other in places), default=0)
            value = (1 - diversity) * relevance[place] - diversity * closest
            if best is None or value > best[0]:
                best = value, place
        if best is None:
            return places
        places.append(best[1])
    return places


@pytest.mark.parametrize("diversity", [0.0, 0.2, 0.5, 0.9])
def test_diverse_lists_are_picked_one_by_one(diversity):
    random = np.random.default_rng(0)
    scores = -np.sort(-random.normal(size=(5, 12)).astype(np.float32), axis=1)
    scores[3, 9:] = -np.inf  # fewer candidates than are picked
    scores[4] = 2.0  # all alike
    vectors = random.normal(size=(5, 12, 4)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    vectors[4, 1] = vectors[4, 0]
    found = np.asarray(diverse(jnp.asarray(scores), jnp.asarray(vectors), 10, jnp.float32(diversity)))
    for row in range(4):
        expected = by_hand(scores[row], vectors[row], 10, diversity)
        assert found[row, : len(expected)].tolist() == expected
        assert len(set(found[row])) == 10  # what is no candidate comes last, and once
    if diversity:
        assert 1 not in found[4, :5]  # the twin of the first
    if not diversity:
        np.testing.assert_array_equal(found[0], np.arange(10))


def all_scores(model, rows):
    """Scores [B, N] of all items in the order of `item_ids`, from lists of everything."""
    found = model.recommend(rows, k=len(model.item_ids), exclude_history=False)
    place = {item: n for n, item in enumerate(model.item_ids)}
    scores = np.full(found.items.shape, np.nan)
    for row, (items, values) in enumerate(zip(found.items, found.scores, strict=True)):
        for item, value in zip(items, values, strict=True):
            scores[row, place[item]] = value
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pad", "blend"])
def test_the_dials_against_numpy(train, dataset, method):
    model, rows = pad_jax.load(train(method)[1]), histories(dataset)[:9]
    ids, scores = np.array(model.item_ids, object), all_scores(pad_jax.load(train(method)[1]), rows)
    count = np.log1p(dataset.counts[1:])
    random = np.random.default_rng(3)
    one, each = list(random.choice(ids, 12, replace=False)), [list(random.choice(ids, 9, replace=False)) for _ in rows]

    def check(expected, **dials):
        found = model.recommend(rows, k=6, **dials)
        for row, history in enumerate(rows):
            own = np.where(np.isin(ids, history), -np.inf, expected[row])
            best = np.argsort(-own, kind="stable")[:6]
            best = best[np.isfinite(own[best])]
            listed = found.items[row][found.items[row] != ""]
            np.testing.assert_allclose(found.scores[row][: len(listed)], own[best], rtol=1e-4, atol=1e-5)
            assert set(listed) <= set(ids[np.isfinite(own)])
            assert len(set(listed)) == len(best)

    check(scores)
    for beta in (0.7, -2.5):
        check(scores + beta * count, popularity=beta)
    in_one = np.isin(ids, one)
    check(np.where(in_one, scores, -np.inf), items=[*one, "not there"])
    check(np.where(in_one, -np.inf, scores), exclude=one)
    in_each = np.array([np.isin(ids, own) for own in each])
    check(np.where(in_each, scores, -np.inf), items=each)
    check(np.where(in_each, -np.inf, scores), exclude=[set(own) for own in each])
    both = np.where(in_one & ~in_each, scores + 0.5 * count, -np.inf)
    check(both, items=np.array(one, object), exclude=each, popularity=0.5)
    plain = model.recommend(rows, k=6)
    same = model.recommend(rows, k=6, popularity=0.0, diversity=0.0, exclude=["not there"])
    np.testing.assert_array_equal(plain.scores, same.scores)


@pytest.mark.slow
def test_diverse_lists_of_a_model_against_brute_force(trained, dataset):
    model, rows = pad_jax.load(trained[1]), histories(dataset)[:5]
    vectors = model.item_vectors()
    vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    ids, scores = np.array(model.item_ids, object), all_scores(model, rows)
    found = model.recommend(rows, k=6, diversity=0.6)
    for row, history in enumerate(rows):
        own = np.where(np.isin(ids, history), -np.inf, scores[row])
        order = np.argsort(-own, kind="stable")
        places = by_hand(own[order], vectors[order], 6, 0.6)
        assert found.items[row].tolist() == ids[order][places].tolist()
        np.testing.assert_allclose(found.scores[row], own[order][places], rtol=1e-4, atol=1e-5)
    assert found.items.tolist() != model.recommend(rows, k=6).items.tolist()


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pad", "blend"])
def test_because_is_leave_one_out(train, dataset, method):
    """Each shortened history goes through the public lists; `data.length` is 8 here."""
    model = pad_jax.load(train(method)[1])
    ids = list(model.item_ids)
    random = np.random.default_rng(2)
    long = [list(random.choice(ids, 9 + n % 4, replace=False)) for n in range(16)]  # an older event comes into sight
    assert min(map(len, long)) > model.artifact.scorer.config.data.length
    rows = [*long, ids[5:9], [*ids[3:6], ids[3]], *histories(dataset)[:6], ids[20:21]]
    found = model.recommend(rows, k=8, explain=True)
    assert found.because[-1].tolist() == [None] * 8
    assert (found.items == model.recommend(rows, k=8).items).all()
    whole, named = all_scores(model, rows), 0
    for row, history in enumerate(rows):
        if len(history) == 1:
            continue
        without = all_scores(model, [history[:n] + history[n + 1 :] for n in range(len(history))])
        for item, because in zip(found.items[row], found.because[row], strict=True):
            lost = whole[row, ids.index(item)] - without[:, ids.index(item)]
            if because is None:
                assert lost.max() < 1e-5
                continue
            named += 1
            own = [lost[n] for n, event in enumerate(history) if event == because]
            assert max(own) == pytest.approx(lost.max(), abs=2e-5)
            assert max(own) > 0
    assert named > 100


@pytest.mark.slow
def test_a_bad_row_is_an_error_of_its_own(trained, dataset):
    model = pad_jax.load(trained[1])
    rows = [["i1", "i2"], ["strange"], [], ["i3"]]
    found = model.recommend(rows, k=3)
    fine = model.recommend([rows[0], rows[3]], k=3)
    np.testing.assert_array_equal(found.items[[0, 3]], fine.items)
    np.testing.assert_allclose(found.scores[[0, 3]], fine.scores, atol=1e-5)
    assert (found.items[[1, 2]] == "").all()
    assert [error is None for error in found.errors] == [True, False, False, True]
    assert "history 1 names no item that the model knows: ['strange']" in found.errors[1]
    dicts = found.to_dicts()
    assert dicts == list(found)
    assert json.loads(found.to_json()) == dicts
    assert dicts[1] == {"user": None, "items": [], "error": found.errors[1]}
    first = dicts[0]["items"][0]
    assert first == {
        "item": fine.items[0, 0],
        "title": fine.titles[0, 0],
        "score": float(found.scores[0, 0]),
        "expert": fine.experts[0, 0],
    }
    assert {type(value) for value in first.values()} == {str, float}
    frame = found.to_polars()
    assert frame["row"].to_list() == [0, 0, 0, 3, 3, 3]
    assert frame["rank"].to_list() == [1, 2, 3] * 2
    assert frame["item"].to_list() == [*found.items[0], *found.items[3]]
    with pytest.raises(UserError, match="history 1 names no item"):
        model.recommend(rows, k=3, strict=True)
    of_row = model.recommend([["i1"], ["i2"]], k=3, items=[["nothing"], ["i5"]])
    assert "the model knows none of its `items`" in of_row.errors[0]
    assert of_row.items[1].tolist() == ["i5", "", ""]
    nobody = model.recommend([["strange"]], k=3, explain=True)
    assert nobody.to_polars().height == 0
    assert nobody.to_polars().columns[-1] == "because"


@pytest.mark.slow
def test_what_is_refused_is_one_line(trained):
    model = pad_jax.load(trained[1])
    for arguments, message in (
        ({"histories": "i1"}, "not a string"),
        ({"histories": ["i1"]}, "'i1' is no history, which is a list .* load it with events="),
        ({"histories": [["i1"]], "items": "i2"}, "items is a list of item ids, not a string"),
        ({"histories": [["i1"]], "exclude": "i2"}, "exclude is a list of item ids, not a string"),
        ({"histories": [["i1"]], "items": []}, "the model knows none of them"),
        ({"histories": [["i1"]], "items": ["nothing"]}, "the model knows none of them"),
        ({"histories": [["i1"], ["i2"]], "items": [["i1"]]}, "a list of them for each of 2 rows"),
        ({"histories": [["i1"]], "diversity": -0.1}, "diversity must be at least 0 and below 1"),
        ({"histories": [["i1"]], "diversity": 1.0}, "diversity must be at least 0 and below 1"),
        ({"histories": [["i1"]], "diversity": float("nan")}, "diversity must be a finite number"),
        ({"histories": [["i1"]], "popularity": float("inf")}, "popularity must be a finite number"),
        ({"histories": [["i1"]], "k": 0}, "k must be from 1 to"),
        ({"histories": [["i1"]], "k": True}, "k must be from 1 to"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            model.recommend(**arguments)
        assert "\n" not in str(caught.value)
    for arguments, message in (
        ({"items": "i1"}, "not a string"),
        ({"items": ["i1"], "k": 99}, "k must be"),
        ({"items": ["i1"], "by": "counts"}, "by='counts' is no expert of the model: it is one of 'fused', 'id'"),
        ({"items": ["i1", "strange"], "strict": True}, "item 'strange' is no item of the model"),
    ):
        with pytest.raises(UserError, match=message):
            model.similar_items(**arguments)


@pytest.mark.slow
def test_similar_items_against_numpy(train):
    model = pad_jax.load(train("blend")[1])
    with pytest.raises(UserError, match="by='followers' has no item vectors: it is one of 'fused', 'learned', 'words'"):
        model.similar_items(["i1"], by="followers")
    ids = list(model.item_ids)
    gates = model.artifact.gates[1:]
    of = {e: model.artifact.vectors[e][1:] for e in ("learned", "words")}
    of["fused"] = np.concatenate([gates[:, [0]] * of["learned"], gates[:, [2]] * of["words"]], axis=1)
    for by, vectors in of.items():
        rows = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        asked = ["i4", "strange", "i20"]
        found = model.similar_items(asked, k=5, by=by)
        assert found.errors[1] == "item 'strange' is no item of the model"
        assert found.to_dicts()[1]["items"] == []
        for row in (0, 2):
            cosines = rows @ rows[ids.index(asked[row])]
            cosines[ids.index(asked[row])] = -np.inf
            np.testing.assert_allclose(found.scores[row], np.sort(cosines)[::-1][:5], atol=1e-5)
            listed = [cosines[ids.index(item)] for item in found.items[row]]
            np.testing.assert_allclose(listed, found.scores[row], atol=1e-5)
        assert set(found.experts[0]) == {by}


@pytest.mark.slow
def test_users_by_their_ids(trained, dataset, tmp_path):
    events = pl.DataFrame(
        [(u, i, t) for u, own in enumerate(histories(dataset)) for t, i in enumerate(own)],
        ["user", "item", "time"],
        orient="row",
    )
    model = pad_jax.load(trained[1], events.sample(fraction=1.0, shuffle=True, seed=0))  # whole numbers are ids, too
    found = model.recommend(["3", 0, ["i1"], "nobody", np.int64(5)], k=4)
    expected = model.recommend([histories(dataset)[3], histories(dataset)[0], ["i1"], histories(dataset)[5]], k=4)
    np.testing.assert_array_equal(found.items[[0, 1, 2, 4]], expected.items)
    assert found.users == ["3", "0", None, "nobody", "5"]
    assert "'nobody' is neither a user whose history the model has nor a list" in found.errors[3]
    events.write_csv(tmp_path / "e.csv")
    again = pad_jax.load(trained[1], tmp_path / "e.csv")
    np.testing.assert_array_equal(again.recommend([3], k=4).items, found.items[:1])
    with pytest.raises(UserError, match="events: there is no column 'time' among user, item"):
        pad_jax.load(trained[1], events.drop("time"))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["pad", "blend"])
def test_parts_add_up_to_the_score(train, dataset, method):
    """Without the popularity dial, which is no expert's; the named expert has the largest part."""
    model, rows = pad_jax.load(train(method)[1]), [*histories(dataset)[:5], ["strange"]]
    experts, items = list(model.artifact.scorer.experts), histories(dataset)[0][:3]
    found = model.recommend(rows, k=6, popularity=0.5, items=[items] * 6, exclude_history=False)
    assert found.parts.shape == (6, 6, len(experts))
    assert (found.parts[5] == 0).all()
    assert (found.parts[:, 3:] == 0).all()  # where the list has ended
    for row in range(5):
        counts = np.log1p([dataset.counts[1 + model.item_ids.index(item)] for item in found.items[row, :3]])
        np.testing.assert_allclose(found.parts[row, :3].sum(axis=1) + 0.5 * counts, found.scores[row, :3], atol=1e-4)
        largest = [experts[n] for n in found.parts[row, :3].argmax(axis=1)]
        assert found.experts[row, :3].tolist() == largest
    of_one = model.recommend(rows, k=6).parts[:5]
    says = len(experts) - (method == "blend")  # no two of these titles have a word in common
    assert np.ptp(of_one.reshape(-1, len(experts)), axis=0)[:says].min() > 0
    assert model.similar_items(["i1"]).parts is None
