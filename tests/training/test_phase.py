"""Where a phase's leaves come from, and the data of each of its epochs."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.run import run
from pad_jax.training import parameters
from tests.support.data import small_config
from tests.support.registries import as_demo, put, restored
from tests.support.steps import Setup


def of_text(config, data, shape):
    """ID rows that start as the leading columns of the text table."""
    return data.text[:, : shape[1]]


def test_a_leaf_is_filled_from_data(dataset, text):
    setup = Setup(small_config("best"), dataset, text)
    phase = Phase("pretrain", ("id",), pretrain_loss, fill={"tables/id": of_text})
    fresh = phase.fresh(setup.config, jax.random.key(0), setup.items, setup.data.text.shape[1])
    started = parameters.start(phase, setup.config, fresh, None, setup.data)
    np.testing.assert_array_equal(started["tables"]["id"], setup.data.text[:, :16])
    assert started["tables"]["id"].unsafe_buffer_pointer() != setup.data.text.unsafe_buffer_pointer()
    np.testing.assert_array_equal(
        started["encoders"]["id"]["backbone"]["positions"], fresh["encoders"]["id"]["backbone"]["positions"]
    )


@pytest.mark.parametrize(
    ("fill", "message"),
    [
        ({"tables/text": of_text}, "'tables/text' is not a parameter"),
        ({"tables/id": lambda config, data, shape: jnp.zeros(3)}, r"'tables/id' is \(31, 16\), not \(3,\)"),
    ],
)
def test_what_does_not_fit_is_an_error(dataset, text, fill, message):
    setup = Setup(small_config("best"), dataset, text)
    phase = Phase("pretrain", ("id",), pretrain_loss, fill=fill)
    fresh = phase.fresh(setup.config, jax.random.key(0), setup.items, 16)
    with pytest.raises(ValueError, match=message):
        parameters.start(phase, setup.config, fresh, None, setup.data)


@pytest.mark.slow
def test_each_epoch_has_the_data_that_the_hook_gives(dataset, tmp_path, monkeypatch):
    """The hook sees the parameters as the epoch begins; what it gives is what the loss reads, also after a restart."""
    from pad_jax.methods.registry import METHODS
    from pad_jax.models.experts import EXPERTS, IdExpert

    seen = []

    class Counting(IdExpert):
        key = 200

        def arrays(self, config, dataset, text):
            return {"weight": np.ones((), np.float32)}

    def loss(scorer, config, params, batch, data, key):
        weight, part = pretrain_loss(scorer, config, params, batch, data, key)["rec"]
        return {"rec": (weight * data.arrays["counting"]["weight"], part)}

    def hook(scorer, config, params, data):
        norm = float(jnp.abs(params["tables"]["counting"]).sum())
        seen.append(norm)
        return data._replace(arrays={"counting": {"weight": jnp.float32(1 + len(seen))}})

    with restored():
        as_demo(dataset)
        EXPERTS.register("counting", Counting())
        phase = Phase("pretrain", ("counting",), loss, each_epoch=hook)
        put(METHODS, "hooked", lambda config: Method("hooked", (phase,)))
        config = small_config("best", method="hooked", pretrain__epochs=2)
        run(config, tmp_path / "run")
        assert len(seen) == 2
        assert seen[0] != seen[1]
        lines = [json.loads(line) for line in (tmp_path / "run/pretrain/metrics.jsonl").read_text().splitlines()]
        for line, weight in zip(lines, (2, 3), strict=True):
            np.testing.assert_allclose(line["loss"], weight * line["rec"], rtol=1e-5)
