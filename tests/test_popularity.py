"""The popularity dial of a finished run: its results, its model, and the way back."""

import json
from dataclasses import replace

import numpy as np
import pytest

import pad_jax
from pad_jax.errors import UserError
from pad_jax.pipeline import Run
from pad_jax.report.__main__ import draw, groups_of, report
from pad_jax.report.table import as_text
from pad_jax.run import run
from pad_jax.serving import Recommender
from pad_jax.settings import with_fields
from pad_jax.workdir.identity import settings_of
from pad_jax.workdir.results import read_ranks, read_results, write_results
from tests.support.data import histories
from tests.support.ranks import brute_force_rank

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("serving")]  # they share trainings


def turned(trained, popularity, job="evaluate"):
    config, workdir = trained
    return run(with_fields(config, {"eval.popularity": popularity, "job": job}), workdir, given=("eval.popularity",))


def files(workdir):
    kept = ("results.json", "ranks.safetensors", "finetune/metrics.jsonl", "config.json")
    return {name: (workdir / name).read_bytes() for name in kept}


def test_ranks_lists_and_vectors_have_the_dial(trained, dataset, text):
    """By sorting score + beta * log(1 + count) of the model without it; beta 0 brings all bytes of the results back."""
    workdir, counts = trained[1], dataset.counts
    before, plain = files(workdir), pad_jax.load(workdir)
    beta = 4 * read_results(workdir)["test"]["by_popularity"][-1]["beta"] / 16
    results = turned(trained, beta)
    for name in ("pretrain", "align", "finetune"):
        assert results["phases"][name]["popularity"] == {"asked": beta, "beta": beta}
    assert f"pad (finetune), popularity {beta:+.3g}" in as_text(results)
    model = pad_jax.load(workdir)
    assert model.artifact.popularity == beta
    users = histories(dataset, 1)
    scores = plain.user_vectors(users) @ plain.item_vectors().T + beta * np.log1p(counts[1:])
    np.testing.assert_allclose(model.user_vectors(users) @ model.item_vectors().T, scores, rtol=1e-5, atol=1e-5)
    found = model.recommend(users, k=30, exclude_history=False)
    order = np.argsort(-(model.user_vectors(users) @ model.item_vectors().T), axis=1, kind="stable")
    np.testing.assert_array_equal(found.items, np.array(model.item_ids, object)[order])
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, order, axis=1), rtol=1e-5, atol=1e-5)
    split, ranks = dataset.split("test", 8), read_ranks(workdir)["test/finetune"]
    padded = np.concatenate([np.zeros((len(scores), 1)), scores], axis=1)
    for user, rank in enumerate(ranks):
        assert abs(rank - brute_force_rank(padded[user], split.target[user], split.history[user])) <= 0.5
    ids = [dataset.item_ids[target - 1] for target in split.target]
    np.testing.assert_allclose(model.ranks(users, ids), ranks, atol=0.5)
    assert (ranks != read_ranks_of(before)).any()
    new = np.random.default_rng(3).normal(size=(2, text.shape[1])).astype(np.float32)
    one, other = (m.with_items(["n1", "n2"], ["New", "Newer"], new).item_vectors()[30:] for m in (plain, model))
    np.testing.assert_array_equal(other, np.pad(one, ((0, 0), (0, 1))))  # nothing is added to what training never met
    turned(trained, 0.0)
    assert files(workdir) == before
    np.testing.assert_array_equal(pad_jax.load(workdir).item_vectors(), plain.item_vectors())


def read_ranks_of(content):
    from safetensors.numpy import load

    return load(content["ranks.safetensors"])["test/finetune"]


def test_valid_takes_the_best_beta_of_each_phase(trained):
    """By its own curve on validation; the curves are those of the run without the dial, and so are the baselines."""
    config, workdir = trained
    before = read_results(workdir)
    results = turned(trained, "valid")
    select = config.train.select
    betas = set()
    for name, phase in results["phases"].items():
        curve = phase["valid"]["by_popularity"]
        assert curve == before["phases"][name]["valid"]["by_popularity"]
        best = max(point[select] for point in curve)
        (chosen,) = [point for point in curve if point["beta"] == phase["popularity"]["beta"]]
        assert chosen[select] == best == phase["valid"][select]
        (test,) = [p for p in phase["test"]["by_popularity"] if p["beta"] == phase["popularity"]["beta"]]
        assert {n: phase["test"][n] for n in ("HR@10", "nDCG@10")} == {n: test[n] for n in ("HR@10", "nDCG@10")}
        betas.add(phase["popularity"]["beta"])
    assert betas != {0.0}
    assert results["baselines"] == before["baselines"]
    (zero,) = [p for p in before["test"]["by_popularity"] if p["beta"] == 0]
    assert zero["by_frequency"]["cold"]["nDCG@10"] == before["test"]["by_frequency"]["cold"]["nDCG@10"]
    assert pad_jax.load(workdir).artifact.popularity == results["phases"]["finetune"]["popularity"]["beta"]


def test_the_job_all_ranks_a_finished_run_anew(trained, capsys):
    workdir = trained[1]
    logs = (workdir / "finetune" / "metrics.jsonl").read_bytes()
    results = turned(trained, 0.25, "all")
    assert "finetune: finished before" in capsys.readouterr().out
    assert results["phases"]["align"]["popularity"]["beta"] == 0.25
    assert pad_jax.load(workdir).artifact.popularity == 0.25
    assert (workdir / "finetune" / "metrics.jsonl").read_bytes() == logs
    once = files(workdir)
    turned(trained, 0.25, "all")
    assert files(workdir) == once


def test_what_works_with_a_run_has_its_dial_unless_told_otherwise(trained):
    """`recommend` of another beta leaves the model as it is; the dial of `evaluate` stays."""
    config, workdir = trained
    turned(trained, 0.25)
    model = (workdir / "model" / "model.safetensors").read_bytes()

    def dial(asked, given=()):
        of = with_fields(config, {"job": "recommend", "eval.popularity": asked})
        return Run(settings_of(workdir, of, given), workdir, str).model().artifact.popularity

    given = ("eval.popularity",)
    assert (dial(0.0), dial(0.0, given), dial(0.5, given), dial(0.5)) == (0.25, 0.0, 0.5, 0.5)
    curve = read_results(workdir)["phases"]["finetune"]["valid"]["by_popularity"]
    best = max(point[config.train.select] for point in curve)
    assert [p[config.train.select] for p in curve if p["beta"] == dial("valid", given)] == [best]
    assert (workdir / "model" / "model.safetensors").read_bytes() == model


def test_results_and_models_of_earlier_versions_are_of_beta_0(trained, tmp_path):
    config, workdir = trained
    results = json.loads((workdir / "results.json").read_text())

    def without(tree):
        kept = {k: v for k, v in tree.items() if k != "by_popularity" and not (k == "popularity" and "asked" in v)}
        return {k: without(v) if isinstance(v, dict) else v for k, v in kept.items()}

    old = without(results)
    assert old["baselines"].keys() == results["baselines"].keys()
    assert as_text(old) == as_text(results)
    write_results(workdir, {k: v for k, v in old.items() if k != "sha256"}, old["of"])
    draw(tmp_path / "page.html", report([workdir], []), groups_of([workdir], []))
    job = Run(replace(config, job="recommend"), workdir, str)
    assert job.model().artifact.popularity == 0
    with pytest.raises(UserError, match=r"eval\.popularity=valid needs the curve over it"):
        Run(with_fields(config, {"eval.popularity": "valid"}), workdir, str).model()
    model = pad_jax.load(workdir)
    with pytest.raises(UserError, match="does not know the training counts of its items"):
        Recommender(replace(model.artifact, counts=None, popularity=0.5)).recommend([["i1"]])


def test_pages_have_the_picture(trained, tmp_path):
    workdir = trained[1]
    draw(tmp_path / "page.html", report([workdir], []), groups_of([workdir], []))
    users = read_results(workdir)["test"]["by_frequency"]
    drawn = "Warm against cold" in (tmp_path / "page.html").read_text()
    assert drawn == all(users[group]["users"] for group in ("warm", "cold"))


def test_runs_of_other_dials_are_no_seeds_of_one_row(train):
    (config, first), (_, second) = train(), train()
    turned((config, second), 0.5)
    with pytest.raises(UserError, match="differ by more than their seed"):
        groups_of([first, second], [])
