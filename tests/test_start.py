"""Training that begins with an earlier model (`config.start`)."""

import shutil
from dataclasses import replace

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from hypothesis import given, settings
from hypothesis import strategies as st

import pad_jax
from pad_jax.errors import UserError
from pad_jax.methods.registry import method_of
from pad_jax.models.scorer import Scorer
from pad_jax.pipeline import Run
from pad_jax.run import run
from pad_jax.serving.artifact import Artifact
from pad_jax.serving.earlier import Earlier
from pad_jax.settings import with_fields
from pad_jax.text.served import Text
from pad_jax.training.step import merge
from tests.support.data import small_config, tiny_dataset
from tests.support.registries import as_demo

CONFIG = small_config("best", method="sasrec")
PHASE = method_of(CONFIG).phases[0]
OLD = [f"i{n}" for n in range(9)]


def fresh(items, seed=0):
    return jax.tree.map(np.asarray, PHASE.fresh(CONFIG, jax.random.key(seed), items, 0))


def earlier(params, item_ids):
    scorer = Scorer(CONFIG, ("id",), "bucket")
    vectors = {"id": params["tables"]["id"]}
    used = {"encoders": params["encoders"]}
    gates = np.ones((len(item_ids) + 1, 1), np.float32)
    artifact = Artifact(scorer, used, item_ids, item_ids, vectors, gates, Text(), tables=params["tables"])
    return Earlier("w", artifact, "")


NEW_ITEMS = fresh(14, seed=1)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from([*OLD, *(f"new{n}" for n in range(5))]), min_size=1, unique=True),
    st.sampled_from([1.0, 0.5]),
)
def test_rows_go_by_item_id(item_ids, scale):
    """Under any permutation of a catalogue from which items are gone and to which others have come."""
    old = fresh(len(OLD))
    own = merge(NEW_ITEMS, {})
    own["tables"] = {"id": NEW_ITEMS["tables"]["id"][: len(item_ids) + 1]}
    found, carried = earlier(old, OLD).begin(method_of(CONFIG), PHASE, own, item_ids, scale)
    table = np.asarray(found["tables"]["id"])
    assert not table[0].any()
    for number, item in enumerate(item_ids, 1):
        row = scale * old["tables"]["id"][1 + OLD.index(item)] if item in OLD else own["tables"]["id"][number]
        np.testing.assert_array_equal(table[number], row)
    for a, b in zip(jax.tree.leaves(found["encoders"]), jax.tree.leaves(old["encoders"]), strict=True):
        np.testing.assert_array_equal(a, b)
    assert carried == set(flatten_dict(own, sep="/"))


def test_an_expert_begins_so_in_the_first_phase_that_has_it():
    """Later ones have it from the phase before; the gate comes along where it is one of the same experts."""
    config = small_config("best", method="staged", text__components=16)
    method = method_of(config)
    of = {
        phase.name: jax.eval_shape(lambda p=phase: p.fresh(config, jax.random.key(0), 9, 16)) for phase in method.phases
    }
    of = {name: jax.tree.map(lambda x: np.ones(x.shape, x.dtype), tree) for name, tree in of.items()}
    params = of["finetune"]
    served = {part: params[part] for part in ("encoders", "towers", "gate")}
    scorer = Scorer(config, ("id", "aligned", "text"), "staged")
    artifact = Artifact(scorer, served, OLD, OLD, {}, np.ones((10, 3), np.float32), Text(), tables=params["tables"])
    start = Earlier("w", artifact, "")
    begun = {phase.name: start.begin(method, phase, of[phase.name], OLD)[1] for phase in method.phases}
    tops = {name: {"/".join(path.split("/")[:2]) for path in paths} for name, paths in begun.items()}
    assert tops["pretrain"] == {"tables/id", "encoders/id"}
    assert tops["align"] == {"tables/aligned", "towers/aligned", "encoders/aligned"}
    assert {path for path in tops["finetune"] if not path.startswith("gate/")} == {"towers/text", "encoders/text"}
    assert any(path.startswith("gate/") for path in tops["finetune"])


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sasrec", "staged"])
def test_a_start_from_itself_scores_as_it_did(train, dataset, tmp_path, method):
    config, workdir = train(method)
    job = Run(with_fields(config, {"start": str(workdir)}), tmp_path / "again", str)
    then = Run(config, workdir, str)
    first = then.method.phases[0]
    _, trained, kept = job.initial(first)
    before, after = flatten_dict(then.best(then.served), sep="/"), flatten_dict(merge(trained, kept), sep="/")
    for name, values in after.items():
        np.testing.assert_array_equal(values, before[name])
    if method == "sasrec":
        from pad_jax.evaluation.ranking import ranker
        from pad_jax.workdir.results import read_ranks

        rank = ranker(first.scorer(job.config), 8)
        ranks = rank(merge(trained, kept), job.data, job.splits["test"])
        np.testing.assert_array_equal(ranks, read_ranks(workdir)["test/pretrain"])


@pytest.mark.slow
def test_the_model_that_it_began_with_is_part_of_a_run(train, tmp_path, capsys):
    config, workdir = train("sasrec")
    warm = with_fields(config, {"start": str(workdir)})
    results = run(warm, tmp_path / "warm")
    assert f"start: id of {workdir}; 30 of its 30 items are there, 0 are new" in capsys.readouterr().out
    assert run(replace(warm, start=str(workdir)), tmp_path / "warm")["phases"] == results["phases"]
    with pytest.raises(UserError, match="holds another configuration: start"):
        run(config, tmp_path / "warm")
    other = run(with_fields(config, {"start": str(workdir / "model")}), tmp_path / "other")
    assert other["phases"]["pretrain"]["valid"] == results["phases"]["pretrain"]["valid"]  # the same model
    assert other["of"] != results["of"]
    run(replace(config, seed=1), tmp_path / "second")
    shutil.rmtree(workdir / "model")
    shutil.copytree(tmp_path / "second" / "model", workdir / "model")
    with pytest.raises(UserError, match=r"began with another model than .* holds now"):
        run(warm, tmp_path / "warm")
    shutil.rmtree(workdir / "model")
    with pytest.raises(UserError, match=f"config.start={workdir} holds no model"):
        run(warm, tmp_path / "next")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.width": 32}, "was made with config.model.width=16, not 32"),
        ({"backbone": "gru4rec"}, "was made with config.backbone='sasrec', not 'gru4rec'"),
        ({"sasrec.heads": 4}, "was made with config.sasrec.heads=2, not 4"),
        ({"data.length": 12}, "was made with config.data.length=8, not 12"),
        ({"method": "morec"}, "has the experts id, and config.method=morec has none of them but text"),
    ],
)
def test_what_does_not_fit_is_one_line(train, tmp_path, fields, message):
    config, workdir = train("sasrec")
    with pytest.raises(UserError, match=message) as caught:
        run(with_fields(config, fields | {"start": str(workdir)}), tmp_path / "w")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "w").exists()


@pytest.mark.slow
def test_words_and_directions_are_those_of_the_earlier_run(world, dataset, tmp_path):
    """Its networks read these: a changed catalogue would turn them."""
    titled = replace(dataset, titles=[f"thing {i % 7} of {i % 5}" for i in range(30)])
    as_demo(titled)
    fields = {"text.encoder": "tfidf", "text.table": "", "method": "morec", "text.components": 16}
    config = small_config("best", **world | fields)
    run(config, tmp_path / "w")
    old = Run(config, tmp_path / "w", str)
    before = old.text.for_training()
    turned = tiny_dataset()
    order = np.random.default_rng(3).permutation(30)
    changed = [titled.titles[n] if n % 3 else f"new words {n}" for n in order]
    as_demo(replace(turned, item_ids=[f"i{n}" if n % 3 else f"n{n}" for n in order], titles=changed))
    job = Run(with_fields(config, {"start": str(tmp_path / "w")}), tmp_path / "next", str)
    rows = job.text.for_training()
    for place, n in enumerate(order):
        if n % 3:
            np.testing.assert_allclose(rows[1 + place], before[1 + n], atol=1e-6)
    run(job.config, tmp_path / "next")
    served = pad_jax.load(tmp_path / "next").artifact.text
    np.testing.assert_array_equal(served.transform.arrays["matrix"], old.text.transform.arrays["matrix"])


def test_a_place_without_a_model_is_one_line(tmp_path):
    for place in (tmp_path, "x" * 300, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="holds no model"):
            Earlier.load(str(place))
