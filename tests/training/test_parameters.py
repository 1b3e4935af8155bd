"""What a phase trains and what it carries along."""

import pytest

from pad_jax.training import parameters


def test_a_frozen_path_that_matches_nothing_is_an_error(setup):
    s = setup()
    _, state = s.state(s.method.phases[0])
    with pytest.raises(ValueError, match="tables/idd"):
        parameters.split(state.params, ("tables/idd",))
