"""The examples of docs/extend.md, each a config file of its own: trained, ranked, exported and served."""

import importlib.machinery
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pad_jax
from pad_jax.batching.device import device_data
from pad_jax.data.settings import DataSettings
from pad_jax.errors import UserError
from pad_jax.evaluation.ranking import rank_by_counting
from pad_jax.methods.base import Phase, forward
from pad_jax.methods.pad import pretrain_loss
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.models.scorer import Scorer
from pad_jax.models.towers import ItemVectors
from pad_jax.run import main
from tests.support.data import ROOT, SMALL, small_config, write_table
from tests.support.registries import as_demo, restored
from tests.support.steps import Setup

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def example(dataset, text, tmp_path, monkeypatch):
    """Runs a job of an example on the tiny dataset; returns the workdir."""
    monkeypatch.chdir(tmp_path)
    write_table(tmp_path / "text.safetensors", np.pad(text[1:], ((0, 0), (0, 4))), dataset, {"encoder": "random"})
    fields = SMALL | {"text.table": tmp_path / "text.safetensors"}
    fields |= {f"{phase}.epochs": 1 for phase in ("pretrain", "align", "finetune")} | {"eval.serve": "last"}

    def run(name: str, job: str = "all", **more) -> Path:
        given = [f"--config.{n}={v}" for n, v in (fields | {k.replace("__", "."): v for k, v in more.items()}).items()]
        workdir = tmp_path / "run"
        assert main(["main.py", f"--config={EXAMPLES}/{name}.py:{job}", *given, f"--workdir={workdir}"]) == 0
        return workdir

    with restored():
        as_demo(dataset)
        yield run


def results(workdir: Path) -> dict:
    return json.loads((workdir / "results.json").read_text())


def load(name: str) -> None:
    """Runs the file of an example, which registers what it brings."""
    importlib.machinery.SourceFileLoader(name, str(EXAMPLES / f"{name}.py")).load_module()


def check_lists(model, dataset, workdir):
    """The scores of a served model, by hand from what its folder holds, and the ranks of the run by counting them."""
    artifact = model.artifact
    split = dataset.split("test", 8)
    parts = {}
    for k, expert in enumerate(artifact.scorer.experts):
        vectors, gate = artifact.vectors[expert], artifact.gates[:, k]
        if expert == "memory":
            scale = float(artifact.params["encoders"]["memory"]["scale"])
            scores = np.zeros((len(split.user), 31))
            for row, last in enumerate(split.inputs[:, -1]):
                for item, often in zip(vectors["following"][last], vectors["often"][last], strict=True):
                    scores[row, item] += scale * np.log1p(often)
            parts[expert] = gate * scores
        else:
            alone = model._batches([h[h > 0] for h in split.inputs])
            users = np.concatenate([np.asarray(encoded.users[expert])[: len(rows)] for rows, encoded in alone])
            parts[expert] = users @ (gate[:, None] * vectors).T
    scores = np.array(sum(parts.values()), np.float32)
    ranks = np.asarray(rank_by_counting(jnp.asarray(scores), jnp.asarray(split.target), jnp.asarray(split.history)))
    at10 = float((ranks <= 10).mean())
    assert abs(at10 - results(workdir)["test"]["HR@10"]) <= 1.5 / len(ranks)  # one tie that rounding breaks
    names = np.array(["", *model.item_ids])
    found = model.recommend([list(names[h[h > 0]]) for h in split.inputs], k=5, exclude_history=False)
    best = -np.sort(-scores[:, 1:], axis=1)[:, :5]
    np.testing.assert_allclose(found.scores, best, rtol=2e-4, atol=2e-5)


#: The examples that are trained, with methods of few phases.
TRAINED = {
    "my_method": {},
    "my_loss": {},
    "my_metric": {},
    "my_gate": {"method": "smem"},
    "my_backbone": {"method": "sasrec", "average__half_life": 2.0},
    "my_memory": {},
    "my_codes": {},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_it_is_trained_ranked_and_served(example, dataset, name):
    workdir = example(name, **TRAINED[name])
    found = results(workdir)
    assert found["test"]["users"] == 37
    model = pad_jax.load(workdir)
    assert model.recommend([["i1", "i2"], ["i3"]], k=3).items.shape == (2, 3)
    if name == "my_metric":
        assert 0 < found["test"]["RBP@10"] < found["test"]["RBP@50"] < 1
    if name == "my_gate":
        assert set(model.artifact.params["gate"]) == {"warm", "slope"}
    if name == "my_loss":
        assert found["loss"] == "bpr"
    if name in ("my_memory", "my_codes"):
        check_lists(model, dataset, workdir)


def test_a_dataset(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "lines").mkdir()
    with restored():
        flag = f"--config={EXAMPLES}/my_dataset.py:prepare"
        assert main(["main.py", flag]) == 2
        assert "lines/histories.txt does not exist; set --config.lines.folder" in capsys.readouterr().err
        histories = "".join(f"u{u} " + " ".join(f"i{(u + n) % 7}" for n in range(6)) + "\n" for u in range(4))
        (tmp_path / "lines" / "histories.txt").write_text(histories)
        (tmp_path / "lines" / "titles.txt").write_text("".join(f"i{n} Thing {n}\n" for n in range(9)))
        assert main(["main.py", flag]) == 0
    assert "4 users, 9 items, 24 events" in capsys.readouterr().out


@pytest.mark.slow
@pytest.mark.parametrize("name", ["my_memory", "my_codes"])
@pytest.mark.parametrize(("loss", "tables"), [("bce", "dense"), ("bce", "lazy"), ("sampled_softmax", "dense")])
def test_an_expert_under_every_loss(dataset, text, name, loss, tables):
    """A step of it: the loss is finite, and what the expert learns has moved."""
    expert, method = {"my_memory": ("memory", "recall"), "my_codes": ("shared", "coded")}[name]
    with restored():
        load(name)
        config = small_config("best", method=method, loss=loss, optimizer__tables=tables)
        setup = Setup(config, dataset, text)
        arrays = EXPERTS[expert].arrays(config, dataset, np.asarray(setup.data.text))
        setup.data = setup.data._replace(arrays={expert: jax.tree.map(jnp.asarray, arrays)})
        phase, (batch, _) = setup.phase("pretrain"), setup.batch()
        optimizer, state = setup.state(phase)
        after, metrics = setup.step(phase, optimizer, state, batch)
        assert np.isfinite(metrics["loss"])
        before, now = state.params, after.params
        for key in ("encoders", "memory", "scale") if expert == "memory" else ("tables", "shared"):
            before, now = before[key], now[key]
        assert (np.asarray(before) != np.asarray(now)).any()


@pytest.mark.slow
def test_a_memory_does_not_know_what_it_is_asked(dataset, text):
    """With leave-one-out, the score of a pair that training has seen once is 0; brute force over all positions."""
    with restored():
        load("my_memory")
        config = small_config("best", method="recall")
        memory, setup = EXPERTS["memory"], Setup(config, dataset, text)
        setup.data = setup.data._replace(
            arrays={"memory": jax.tree.map(jnp.asarray, memory.arrays(config, dataset, None))}
        )
        phase, (batch, _) = setup.phase("pretrain"), setup.batch()
        _, state = setup.state(phase)
        seen = forward(setup.scorer(phase), config, state.params, batch, setup.data, None)
        items = {"item": jnp.arange(31), "following": None, "often": None}
        scores = np.asarray(memory.score(seen.users["memory"], items, 31))
        pairs = {}
        for begin, end in zip(dataset.starts[:-1], dataset.cuts.train_end, strict=True):
            for pair in zip(dataset.events[begin : end - 1], dataset.events[begin + 1 : end], strict=True):
                pairs[pair] = pairs.get(pair, 0) + 1
        inputs = np.asarray(batch.inputs_of(batch.event_item))
        targets, valid = np.asarray(batch.targets), np.asarray(batch.valid)
        scale = float(state.params["encoders"]["memory"]["scale"])
        assert valid.sum() > 50
        for token in np.flatnonzero(valid):
            last, target = int(inputs[token]), int(targets[token])
            for item in range(1, 31):
                count = pairs.get((last, item), 0) - (item == target)
                np.testing.assert_allclose(scores[token, item], scale * np.log1p(count), atol=1e-6)


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ("vectors", r"the expert 'wrong' must give vectors \[30, 16\], not \[30, 3\]: override its `width`"),
        ("bare", "the expert 'wrong' must give ItemVectors, not"),
    ],
)
def test_what_an_expert_gives_is_checked(dataset, text, part, message):
    class Wrong(Expert):
        key = 300

        def items(self, config, tower, text, rows, ids, product=None, rngs=None):
            return jnp.zeros((30, 16)) if part == "bare" else ItemVectors(jnp.zeros((len(ids), 3)))

    with restored():
        EXPERTS.register("wrong", Wrong())
        setup = Setup(small_config("best", method="sasrec"), dataset, text)
        with pytest.raises(UserError, match=message):
            Scorer(setup.config, ("wrong",), "bucket").item_vectors({}, jnp.arange(30), setup.data)


def test_a_phase_without_a_budget_names_the_cure():
    phase = Phase("stage", ("id",), pretrain_loss)
    with pytest.raises(UserError, match=r"no section config\.stage .*register\(\"stage\", PretrainSettings\)"):
        phase.limits(small_config())


def test_two_experts_with_one_key_are_refused():
    with restored():
        load("my_codes")

        class Other(type(EXPERTS["shared"])):
            pass

        with pytest.raises(UserError, match="has the key 101 of shared; give it another number"):
            EXPERTS.register("other", Other())


@pytest.mark.slow
def test_what_a_model_needs_and_nobody_registered_is_named(example, tmp_path):
    workdir = example("my_codes", "pretrain")
    with restored():
        del EXPERTS._entries["shared"]
        with pytest.raises(UserError, match=r"needs the expert 'shared'.*docs/examples/my_codes\.py"):
            pad_jax.load(workdir)


def test_an_example_is_one_file_of_at_most_100_lines():
    for path in EXAMPLES.glob("*.py"):
        assert len(path.read_text().splitlines()) <= 100, path


def test_codes_are_learned_by_all_that_share_them(dataset, text):
    """The gradient of a shared row is the sum over its items, and lazy tables leave it to the dense optimizer."""
    with restored():
        load("my_codes")
        config = small_config("best", method="coded", loss="bce", optimizer__tables="lazy")
        padded = np.pad(text, ((0, 0), (0, 4)))
        codes = EXPERTS["shared"].arrays(config, dataset, padded)
        data = device_data(dataset, DataSettings(length=8), padded)._replace(arrays={"codes": codes})
        table = jax.random.normal(jax.random.key(0), (129, 16))
        rows = EXPERTS["shared"].look_up(table, jnp.arange(31), codes)
        by_hand = np.stack([np.asarray(table)[c].mean(axis=0) for c in codes["codes"]])
        np.testing.assert_allclose(rows, by_hand, atol=1e-6)
        assert data.arrays["codes"]["codes"].shape == (31, 4)
        assert len(np.unique(codes["codes"][1:])) > 60
