"""LLMInit: where the ID rows start, and what is left of the text."""

import jax
import jax.numpy as jnp
import numpy as np

from pad_jax.methods.fills import text_start
from pad_jax.models.experts import fresh_rows
from tests.support.steps import names


def lengths(rows):
    return np.linalg.norm(rows[1:], axis=1)


def test_rows_start_as_principal_directions_of_the_text(setup):
    s = setup("llminit")
    rows = np.asarray(s.data.text)[1:]
    centred = rows - rows.mean(axis=0)
    directions = np.linalg.svd(centred, full_matrices=False)[2]
    for width in (5, 16):
        start = text_start(s.config, s.data, (31, width))
        assert start.dtype == np.float32
        assert not start[0].any()
        expected = np.zeros((30, width))
        expected[:, :12] = (centred @ directions.T)[:, :width]
        usual = lengths(fresh_rows(s.config, jax.random.key(s.config.seed), (31, width))).mean()
        np.testing.assert_allclose(lengths(start).mean(), usual, rtol=1e-5)
        expected *= usual / np.linalg.norm(expected, axis=1).mean()
        np.testing.assert_allclose(np.abs(start[1:]), np.abs(expected), atol=1e-5)
    as_it_is = text_start(s.config, s.data, (31, 12))
    factor = as_it_is[1, 0] / rows[0, 0]
    np.testing.assert_allclose(as_it_is[1:], factor * rows, rtol=1e-4, atol=1e-6)
    none = text_start(s.config, s.data._replace(text=jnp.ones((31, 12))), (31, 5))
    assert np.isfinite(none).all()


def test_the_text_is_read_once_and_no_part_of_the_model(setup):
    starts = {}
    for scale in (1.0, 3.0):
        s = setup("llminit", "best", **{"llminit.scale": scale})
        phase = s.method.phases[0]
        _, state = s.state(phase)
        starts[scale] = np.asarray(state.params["tables"]["id"])
        np.testing.assert_allclose(starts[scale], scale * text_start(s.config, s.data, (31, 16)), rtol=1e-6)
        assert s.method.reads_text
        assert not phase.reads_text
        assert not any(name.startswith("towers") for name in names(state.params))
