"""Codes in place of IDs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pad_jax
from pad_jax import sealed
from pad_jax.errors import UserError
from pad_jax.models.experts import EXPERTS
from pad_jax.pipeline import Run
from pad_jax.run import run
from pad_jax.sealed import DamagedError
from pad_jax.settings import with_fields
from pad_jax.text.codes import assign
from pad_jax.training.step import merge
from tests.support.data import histories
from tests.support.steps import names

FIELDS = {"codes.books": 3, "codes.size": 8, "codes.latent": 4, "codes.hidden": (8,), "codes.steps": 0}
FIELDS |= {"codes.bottleneck": 4}


def with_arrays(s, dataset):
    """The setup with the codes of its texts; they are learned in the test."""
    arrays = EXPERTS["codes"].arrays(s.config, dataset, np.asarray(s.data.text))
    s.data = s.data._replace(arrays={"codes": jax.tree.map(jnp.asarray, arrays)})
    return s


def test_an_item_is_its_codes_and_only_they_are_trained(setup, dataset):
    s = with_arrays(setup("moc", "best", **FIELDS), dataset)
    codes = np.asarray(s.data.arrays["codes"]["codes"])
    assert not codes[0].any()
    assert all(((c - 1) // 8 == m).all() for m, c in enumerate(codes[1:].T))
    same = s.data.arrays["codes"] | {"codes": jnp.asarray(codes).at[7].set(codes[3])}
    s.data = s.data._replace(arrays={"codes": same})
    phase = s.method.phases[0]
    optimizer, state = s.state(phase)
    assert state.params["tables"]["codes"].shape == (25, 16)
    batch, _ = s.batch()
    after, _ = s.step(phase, optimizer, state, batch)
    table = np.asarray(after.params["tables"]["codes"])
    items = jax.jit(s.scorer(phase).item_vectors)(after.params, jnp.arange(31), s.data)["codes"].vector
    np.testing.assert_array_equal(items[3], items[7])
    assert not np.asarray(items[0]).any()
    tower = jax.tree.map(np.asarray, after.params["towers"]["codes"])
    for item in (1, 7, 30):
        e = table[same["codes"][item]].reshape(-1)
        hidden = np.asarray(jax.nn.gelu(e @ tower["down"]["kernel"] + tower["down"]["bias"], approximate=False))
        gate = 1 / (1 + np.exp(-(hidden @ tower["up"]["kernel"] + tower["up"]["bias"])))
        np.testing.assert_allclose(items[item], (e * gate).reshape(3, 16).mean(axis=0), atol=1e-6)
    moved = (table != np.asarray(state.params["tables"]["codes"])).any(axis=1)
    assert not table[0].any()
    seen = {c for item in np.asarray(batch.event_item) if item for c in np.asarray(same["codes"][item])}
    assert moved[sorted(seen)].all()


def test_in_the_company_of_smem_codes_stand_where_ids_stood(setup, dataset):
    fields = FIELDS | {"codes.company": "smem", "codes.fusion": "linear"}
    s = with_arrays(setup("moc", "best", **fields | {"codes.bottleneck": 0}), dataset)
    second = s.method.phases[1]
    smem = setup("smem", "best").method.phases[2]
    assert second.experts == ("codes", *smem.experts[1:])
    previous = s.previous(second)
    _, state = s.state(second, previous)
    assert {n.split("/")[1] for n in names(state.params) if n.startswith("encoders")} == {"codes", "aligned", "text"}
    assert set(state.params["tables"]) == {"codes", "aligned"}
    assert set(previous["towers"]["codes"]) == {"out"}
    whole = merge(state.params, state.frozen)
    np.testing.assert_array_equal(whole["tables"]["codes"], previous["tables"]["codes"])
    batch, _ = s.batch()
    assert np.isfinite(s.loss(second, whole, batch))


@pytest.mark.slow
def test_it_is_trained_served_and_knows_new_items(world, make_config, dataset, text, tmp_path, capsys):
    """Its codes are the run's own: a new item has those of its text, and a job on another machine has the same."""
    config = make_config("best", **world | FIELDS | {"method": "moc"})
    workdir = tmp_path / "w"
    run(config, workdir)
    out = capsys.readouterr().out
    assert "codes: 30 items, 3 books; of 8 codes in use" in out
    assert "codes (after Mixture-of-Codes) (pretrain)" in out
    model = pad_jax.load(workdir)
    artifact = model.artifact
    more = model.with_items(["n1", "n2"], ["As i6", "New"], np.stack([text[7], -text[2]]))
    more = more.with_items(["n3"], ["As i9"], text[[10]])
    vectors = more.item_vectors()
    np.testing.assert_allclose(vectors[[30, 32]], vectors[[6, 9]], atol=1e-6)
    codes = assign(artifact.arrays["codes"]["quantiser"], config.codes, artifact.text.transform(-text[[2]]))
    rows = np.asarray(codes)[0] + 1 + 8 * np.arange(3)
    job = Run(with_fields(config, {"job": "evaluate"}), workdir, str)
    like = job.data._replace(arrays={"codes": {"codes": jnp.asarray(rows[None])}})
    scorer, params = artifact.scorer, job.best(job.method.phases[0])
    np.testing.assert_allclose(
        vectors[31], scorer.item_vectors(params, jnp.arange(1), like)["codes"].vector[0], atol=1e-6
    )
    found = more.recommend(histories(dataset), k=33, exclude_history=False)
    assert all({"n1", "n2", "n3"} <= set(row) for row in found.items)

    assert "codes: learning" not in capsys.readouterr().out  # the job above has read them
    path = workdir / "arrays.safetensors"
    content = path.read_bytes()
    arrays, about = sealed.read_tensors(path, 2, "")
    for damaged in (content[:-1] + b"x", sealed.tensors(arrays, about | {"of": "x"}), None):
        path.unlink() if damaged is None else path.write_bytes(damaged)
        with pytest.raises(DamagedError, match=r"arrays.safetensors .*; put it back, or use a new --workdir"):
            _ = Run(config, workdir, str).data
    path.write_bytes(content)
    check_nonsense(workdir)


def check_nonsense(workdir):
    """What new items need is checked when a model is loaded."""
    path = workdir / "model" / "model.safetensors"
    arrays, about = sealed.read_tensors(path, 2, "")
    assert "arrays/codes/codes" not in arrays  # the items' own vectors are there
    learned = "arrays/codes/quantiser"
    for name in ("tables/codes", f"{learned}/encoder/Dense_0/kernel", f"{learned}/heads", f"{learned}/books"):
        rest = {n: x for n, x in arrays.items() if n != name}
        for change in ({}, {name: arrays[name][:-1]}) if "/books" in name else ({name: arrays[name][:-1]},):
            path.write_bytes(sealed.tensors(rest | change, about))
            with pytest.raises(UserError, match="is damaged"):
                pad_jax.load(workdir)
