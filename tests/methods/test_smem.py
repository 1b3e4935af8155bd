"""SMEM is PAD without its phase 2."""

import numpy as np
import pytest

from pad_jax.training.step import merge
from tests.support.steps import leaves, names


@pytest.mark.parametrize("recipe", ["paper", "best"])
def test_smem_is_pad_with_phase_two_off(setup, recipe):
    """Its phase 3 starts from what PAD's would start from if phase 2 had not moved anything, and has the same loss."""
    pad, smem = setup("pad", recipe), setup("smem", recipe)
    pretrained = pad.previous(pad.method.phases[1])
    align, finetune = pad.method.phases[1:]
    _, expected = pad.state(finetune, pad.started(align, pretrained))
    phase = smem.method.phases[1]
    _, state = smem.state(phase, pretrained)
    assert phase.experts == finetune.experts
    own, theirs = (merge(x.params, x.frozen) for x in (state, expected))
    flat, other = (leaves(x) for x in (own, theirs))
    assert set(flat) == set(other)
    for path, leaf in flat.items():
        np.testing.assert_array_equal(leaf, other[path], err_msg=path)
    batch, _ = pad.batch()
    np.testing.assert_array_equal(smem.loss(phase, own, batch), pad.loss(finetune, theirs, batch))
    trained = {n.split("/")[1] for n in names(state.params) if n.startswith("encoders")}
    assert trained == ({"id", "aligned", "text"} if recipe == "paper" else {"aligned", "text"})
