"""SMEM is PAD without its alignment."""

import numpy as np
import pytest

from tests.support.steps import leaves


@pytest.mark.parametrize("recipe", ["paper", "best"])
def test_smem_has_pads_phases_without_mmd_and_without_its_start(setup, recipe):
    """The same experts move in the same phases by the same losses; the aligned expert's ID rows start fresh."""
    pad, smem = setup("pad", recipe, **{"mmd.weight": 0.0}), setup("smem", recipe)
    batch, _ = pad.batch()
    for ours, theirs in zip(smem.method.phases, pad.method.phases, strict=True):
        assert (ours.name, ours.experts) == (theirs.name, theirs.experts)
        assert {path.split("/")[1] for path in ours.keep} == {path.split("/")[1] for path in theirs.keep}
        previous = pad.previous(theirs) if theirs.start else None
        params = pad.started(theirs, previous)
        np.testing.assert_array_equal(smem.loss(ours, params, batch), pad.loss(theirs, params, batch))
    pretrained = smem.previous(smem.method.phases[1])
    started = smem.started(smem.method.phases[1], pretrained)
    fresh = smem.fresh(smem.method.phases[1])
    np.testing.assert_array_equal(started["tables"]["aligned"], fresh["tables"]["aligned"])
    assert (started["tables"]["aligned"][1:] != pretrained["tables"]["id"][1:]).all(axis=1).all()
    last = smem.started(smem.method.phases[2], started)
    for path in ("tables/id", "encoders/id", "tables/aligned", "encoders/aligned", "towers/aligned"):
        part, name = path.split("/")
        for leaf, value in leaves(last[part]).items():
            if leaf.split("/")[0] == name:
                np.testing.assert_array_equal(value, leaves(started[part])[leaf], err_msg=leaf)
