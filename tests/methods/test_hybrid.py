"""Hybrid encoding."""


def test_hybrid_joins_a_table_and_a_text_tower_in_one_expert(setup):
    s = setup("hybrid")
    _, state = s.state(s.method.phases[0])
    assert set(state.params["tables"]) == set(state.params["towers"]) == set(state.params["encoders"]) == {"aligned"}
    assert "gate" not in state.params
