"""The job `search`: its space, its trials, and going on after a kill."""

import builtins
import os
import re
import shutil
from dataclasses import replace

import pytest

from pad_jax.errors import UserError
from pad_jax.run import run
from pad_jax.search import Axis, read_space
from pad_jax.settings import with_fields
from pad_jax.training import loop
from pad_jax.workdir.results import read_results
from tests.support.data import small_config

optuna = pytest.importorskip("optuna", reason="the job search needs Optuna")
SPACE = ("pretrain.learning_rate=1e-4..1e-1 log", "train.batch=16|32", "sasrec.blocks=1..2")


def space(*axes, **fields):
    return read_space(small_config("best", method="sasrec", search__space=axes, **fields))


def test_axes_have_the_types_of_their_fields():
    assert space(*SPACE) == [
        Axis("pretrain.learning_rate", (), 1e-4, 1e-1, True),
        Axis("train.batch", (16, 32)),
        Axis("sasrec.blocks", (), 1, 2),
    ]
    assert space("model.user = state | residual", "text.normalize=True|False") == [
        Axis("model.user", ("state", "residual")),
        Axis("text.normalize", (True, False)),
    ]


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("model.dropuot=0..1", "did you mean 'model.dropout'"),
        ("model.dropout", "must be NAME=LOW..HIGH"),
        ("model.dropout=", "must be NAME=LOW..HIGH"),
        ("model.dropout=0.1", "two choices or more"),
        ("model.dropout=0.1|0.1", "two choices or more"),
        ("model.dropout=0.5..0.1", "the lower end comes first"),
        ("model.dropout=0..0.5 log", "a log range begins above 0"),
        ("model.dropout=0.1..1.5", "config.model.dropout must be at least 0, below 1"),
        ("model.dropout=a..b", "'a' is not a number"),
        ("model.dropout=nan..0.5", "comes first"),
        ("sasrec.blocks=1.5..2", "'1.5' is not a whole number"),
        ("model.user=state..residual", "a range is of numbers"),
        ("model.user=state|residul", "did you mean 'residual'"),
        ("text.normalize=yes|no", "'yes' is not True or False"),
        ("mmd.scales=1|2", "is no single value"),
        ("seed=0..9", "cannot be compared"),
        ("recipe=paper|best", "cannot be compared"),
        ("train.select=HR@10|nDCG@10", "cannot be compared"),
        ("data.min_events=3..5", "cannot be compared"),
        ("eval.batch=8|16", "cannot be compared"),
        ("search.trials=1..2", "cannot be compared"),
    ],
)
def test_what_is_no_axis_is_one_line(axis, message):
    with pytest.raises(UserError, match=re.escape(f"config.search.space: {axis!r}")) as caught:
        space(axis)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_space_is_needed_and_names_a_field_once(tmp_path):
    with pytest.raises(UserError, match=r"config\.search\.space is empty"):
        run(small_config(job="search"), tmp_path / "s")
    with pytest.raises(UserError, match=r"has model\.dropout twice"):
        space("model.dropout=0..0.5", "model.dropout=0.1|0.2")
    assert not (tmp_path / "s").exists()


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch):
    real = builtins.__import__

    def missing(name, *rest):
        if name == "optuna":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    with pytest.raises(UserError, match=r'pip install "pad_jax\[search\]"'):
        run(small_config(job="search", search__space=SPACE), tmp_path / "s")


@pytest.fixture
def config(world):
    """Trials of one shape, so that they are compiled once."""
    axes = ("pretrain.learning_rate=1e-4..1e-1 log", "train.weight_decay=0.0|0.1")
    fields = {"method": "sasrec", "job": "search", "search.space": axes, "search.trials": 3, "pretrain.epochs": 2}
    return small_config("best", **world | fields)


def trials(folder):
    """(settings, values after each epoch, value) of every trial."""
    found = optuna.load_study(study_name="search", storage=f"sqlite:///{folder}/search.db").trials
    return [(t.params, t.intermediate_values, t.value, t.state.name) for t in found]


class KilledError(Exception):
    pass


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get("PAD_JAX_LONG"), reason="takes minutes: set PAD_JAX_LONG=1")
def test_a_killed_search_ends_as_it_would_have(config, tmp_path, monkeypatch, capsys):
    """And no test figure is made or shown; the best settings, as flags, give the value that they had."""
    folder = tmp_path / "s"
    judged = []
    real_metrics = loop.train

    def watched(*arguments, **named):
        judged.append(arguments[0])
        return real_metrics(*arguments, **named)

    monkeypatch.setattr(loop, "train", watched)
    run(config, folder)
    said = capsys.readouterr().out
    assert len(judged) == 3
    assert "test" not in said.replace(str(tmp_path), "").replace("test split was not", "")
    assert "popularity" not in said
    page = (folder / "search.md").read_text()
    assert "3 trials (3 whole)" in page
    assert "the test split was not looked at" in page
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "search.db", "search.html", "search.md"]
    whole = trials(folder)
    assert [len(values) for _, values, _, _ in whole] == [2, 2, 2]

    real, count = loop._stop, [0]

    def kill(config, phase, status):
        count[0] += status["epoch"] == 1
        if count[0] == 2:
            raise KilledError
        return real(config, phase, status)

    monkeypatch.setattr(loop, "_stop", kill)
    with pytest.raises(KilledError):
        run(config, tmp_path / "k")
    monkeypatch.setattr(loop, "_stop", real)
    results = read_results(tmp_path / "k" / "trial-1")
    assert not results.get("phases")
    run(config, tmp_path / "k")
    assert "pretrain: continues after epoch 1" in capsys.readouterr().out
    assert trials(tmp_path / "k") == whole

    # fewer trials, or as many, are there already; other settings are another search
    run(with_fields(config, {"search.trials": 2}), tmp_path / "k")
    assert trials(tmp_path / "k") == whole
    with pytest.raises(UserError, match="holds a search of another space, other settings or data"):
        run(with_fields(config, {"train.weight_decay": 0.5}), tmp_path / "k")

    best, _, value, _ = max(whole, key=lambda trial: trial[2])
    for name, chosen in best.items():
        assert f"--config.{name}={chosen!r}" in page
    found = run(with_fields(replace(config, job="all"), best), tmp_path / "best")
    assert found["phases"]["pretrain"]["valid"]["nDCG@10"] == pytest.approx(value, abs=1e-12)

    shutil.copy(tmp_path / "s" / "search.md", tmp_path / "s" / "search.db")
    with pytest.raises(UserError, match=r"search\.db cannot be used"):
        run(config, folder)


@pytest.mark.slow
def test_bad_trials_are_pruned_and_broken_ones_counted(config, tmp_path, monkeypatch, capsys):
    """The trial that is worse than the median of those before, epoch by epoch."""
    monkeypatch.setattr("pad_jax.search.STARTUP", 1)
    monkeypatch.setattr("pad_jax.search.WARMUP", 1)
    rates = iter([0.03, 1e-9, 1e30])
    monkeypatch.setattr(
        Axis, "suggest", lambda _, trial: trial.suggest_categorical("pretrain.learning_rate", (next(rates),))
    )
    monkeypatch.setattr(optuna.distributions, "check_distribution_compatibility", lambda *_: None)
    run(with_fields(config, {"search.space": config.search.space[:1]}), tmp_path / "s")
    states = [state for *_, state in trials(tmp_path / "s")]
    assert states == ["COMPLETE", "PRUNED", "FAIL"]
    page = (tmp_path / "s" / "search.md").read_text()
    assert "3 trials (1 whole, 1 pruned, 1 failed)" in page
    assert re.search(r"\| 2 \| 1e-09 \| [\d.]+ \| ([12]) \| pruned in pretrain, epoch \1 \|", page)
    assert "failed: not finite" in page
