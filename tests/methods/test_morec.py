"""MoRec."""


def test_morec_has_no_id_table(setup):
    s = setup("morec")
    _, state = s.state(s.method.phases[0])
    assert "tables" not in state.params
    assert set(state.params["encoders"]) == {"text"}
