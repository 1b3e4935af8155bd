"""Fields, bounds, recipes, earlier names, and what is said of them."""

import copy
import dataclasses
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pad_jax import cli
from pad_jax.config import config_dict, explain, resolve
from pad_jax.errors import UserError
from pad_jax.registry import REGISTRIES
from pad_jax.run import main
from pad_jax.settings import (
    RECIPES,
    Config,
    aliases,
    as_before,
    as_dict,
    build,
    canonical,
    defaults,
    dotted,
    recipe_values,
    restored,
    specs,
    with_fields,
)
from tests.support.data import ROOT


def test_every_field_says_what_it_is():
    for name, (_, _, spec) in specs().items():
        assert len(spec.about) > 5, name
        assert set(spec.recipes) <= set(RECIPES), name


def test_every_default_and_every_recipe_is_within_its_bounds():
    for recipe in RECIPES:
        config = resolve(config_dict("demo", recipe=recipe))
        flat = dotted(as_dict(config))
        assert flat["recipe"] == recipe
        for name, value in recipe_values(recipe).items():
            assert flat[name] == value, name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_out_of_bounds(value):
    config = build(defaults("demo"))
    checked = 0
    for name, (kind, _, _) in specs().items():
        if kind is float:
            with pytest.raises(UserError, match=rf"config\.{name} must be "):
                with_fields(config, {name: value})
            checked += 1
    assert checked > 10
    with pytest.raises(UserError, match=r"config\.gate\.start must be finite"):
        with_fields(config, {"gate.start": (0.0, value, 0.0)})


ANY = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just("\ud800")),
    lambda parts: st.one_of(st.lists(parts, max_size=3), st.lists(parts, max_size=3).map(tuple)),
    max_leaves=4,
)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_a_setting_of_any_value_is_taken_or_one_line(data):
    """What is taken has the type of its field, is finite, and is the same when it is read again."""
    name = data.draw(st.sampled_from(sorted(specs())))
    value = data.draw(st.one_of(ANY, st.sampled_from([(), (1,), (10, 2**40), 2**31 - 1, 2**53, 1e308, -1, "a\0b"])))
    config, message = build(defaults("demo")), ""
    try:
        config = with_fields(config, {name: value})
    except UserError as error:
        message = str(error)
    assert "\n" not in message
    found = dotted(as_dict(config))[name]
    for part in found if isinstance(found, tuple) else (found,):
        assert not isinstance(part, float) or abs(part) < float("inf") or not specs()[name][2].finite
    assert with_fields(config, {name: found}) == config


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("model.width", 0, "must be at least 1, below 65537, not 0"),
        ("model.width", 10**400, "must be a number of reasonable size"),
        ("model.width", 1.5, "must be a whole number"),
        ("model.width", True, "must be a whole number"),
        ("model.dropout", 1.0, "must be at least 0, below 1, not 1.0"),
        ("pretrain.learning_rate", 0.0, "must be above 0, not 0.0"),
        ("eval.ks", (10, "5"), "must be a tuple of whole numbers"),
        ("eval.ks", 10, "must be a tuple of whole numbers"),
        ("eval.ks", (5,), "must have 10 among them"),
        ("mmd.scales", (1100,), "must be at least -30, below 31"),
        ("mmd.scales", (), "must name one scale or more"),
        ("gate.start", ("a", "b", "c"), "must be a tuple of numbers"),
        ("text.adapters", (1,), "must be a tuple of texts"),
        ("data.time", (1, 2, 3), "must be (t_valid, t_test) or empty"),
        ("model.fusion", "ad", "is unknown: one of concat, linear, add; did you mean 'add'?"),
        ("table.user", 3, "must be text"),
        ("experts.copy_encoder", 1, "must be True or False"),
        ("train.select", "HR@11", "is unknown"),
        ("eval.popularity", "vald", "must be a number or one of valid, not 'vald'"),
        ("eval.popularity", (1.0,), "must be a number or text, not (1.0,)"),
        ("eval.popularity", 1e6, "must be above -1000000.0, below 1000000.0"),
    ],
)
def test_bad_values_are_one_line(field, value, message):
    with pytest.raises(UserError) as error:
        with_fields(build(defaults("demo")), {field: value})
    assert str(error.value).startswith(f"config.{field}")
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_whole_number_will_do_for_a_number():
    assert with_fields(build(defaults("demo")), {"mmd.weight": 1}).mmd.weight == 1


def test_earlier_names_are_understood_everywhere():
    assert aliases()["model.blocks"] == "sasrec.blocks"
    source = config_dict("demo", recipe="best")
    source.model.blocks = 3
    assert resolve(source, ["model.blocks"]).sasrec.blocks == 3
    assert resolve(config_dict("demo", recipes={"best": {"model": {"blocks": 4}}}, recipe="best")).sasrec.blocks == 4
    assert canonical({"model": {"blocks": 7, "width": 8}}) == {"sasrec": {"blocks": 7}, "model": {"width": 8}}
    for old, new in aliases().items():
        assert old not in specs()
        assert new in specs()


def test_what_a_file_does_not_know_means_what_was_done_then():
    values = as_dict(resolve(config_dict("demo", recipe="best")))
    del values["sasrec"], values["train"]["adjustment"]
    values["somebody"] = {"else": 1}
    values["method"], values["mmd"]["kernel"] = "unheard", "of"
    config = restored(values)
    assert config.sasrec.blocks == as_before()["sasrec.blocks"] == 5
    assert config.train.adjustment == 0
    assert not hasattr(config, "somebody")
    assert (config.method, config.mmd.kernel) == ("unheard", "of")


def test_a_configuration_is_a_value():
    first, second = (build(defaults("demo")) for _ in range(2))
    assert first == second
    assert hash(first) == hash(second)
    assert isinstance(first, Config)
    assert dataclasses.replace(first, seed=1).data == first.data
    with pytest.raises(dataclasses.FrozenInstanceError):
        first.seed = 1


def test_a_field_is_explained(capsys):
    for arguments in (["--explain=model.norm"], ["--explain=config.sasrec.norm"]):
        with pytest.raises(SystemExit) as stop:
            main(["main.py", *arguments])
        assert stop.value.code == 0
        output = capsys.readouterr().out
        for part in ("config.sasrec.norm = 'post'", "choices: post, pre", "recipes: paper 'pre'", "model.norm"):
            assert part in output
    assert "unit: powers of two" in explain("mmd.scales")
    assert explain("mmd").count("config.mmd.") == 7
    assert main(["main.py", "--explain=mmd.kernal"]) == 2
    assert "did you mean 'mmd.kernel'" in capsys.readouterr().err


def test_the_page_of_settings_is_what_the_code_says():
    """Made again by: python main.py --explain=all > docs/settings.md"""
    assert (ROOT / "docs" / "settings.md").read_text() == explain("all") + "\n"


def test_help_names_jobs_choices_and_flags(capsys):
    with pytest.raises(SystemExit):
        main(["main.py", "--help"])
    output = capsys.readouterr().out
    for kind in ("method", "backbone", "loss"):
        for name in REGISTRIES[kind]:
            assert re.search(rf"--config\.{kind} .*\b{name}\b", output)
    for word in ("recommend", "compare", "--workdir=DIR", "--explain=FIELD", "docs/settings.md", *RECIPES):
        assert word in output


def test_what_is_assigned_wins_over_the_recipe_whatever_the_value():
    """Also a default: it was written, so it is meant."""
    config = config_dict("demo", recipe="best")
    config.loss = "bce"
    config.pretrain.epochs = 3
    config.model.blocks = 5  # an earlier name, and the default
    config.train.update({"batch": 16})
    for found in (resolve(config), resolve(copy.deepcopy(config))):
        assert (found.loss, found.pretrain.epochs, found.sasrec.blocks, found.train.batch) == ("bce", 3, 5, 16)
        assert found.pretrain.learning_rate == 1e-3  # of the recipe
    assert resolve(config_dict("demo", recipe="best", loss="bce")).loss == "bce"


def test_the_command_line_wins_over_the_file(tmp_path):
    file = tmp_path / "shop.py"
    file.write_text(
        "from pad_jax.config import config_dict\n\n\ndef get_config(job='all'):\n"
        "    config = config_dict('demo', job, recipe='best')\n    config.loss = 'bce'\n"
        "    config.model.blocks = 3\n    return config\n"
    )

    def parsed(*flags):
        config = cli.parse(["main.py", f"--config={file}", *flags]).config
        return config.loss, config.sasrec.blocks, config.recipe

    assert parsed() == ("bce", 3, "best")
    assert parsed("--config.loss=ce") == ("ce", 3, "best")
    assert parsed("--config.sasrec.blocks=4") == ("bce", 4, "best")
    assert parsed("--config.recipe=paper") == ("bce", 3, "paper")


def test_a_number_or_a_text(tmp_path):
    """In a file and on the command line, whatever the default's type; a copy of the file's result keeps it so."""
    file = tmp_path / "mine.py"
    code = "from pad_jax.config import config_dict\n\ndef get_config(job='all'):\n"
    for written, said, expected in (
        (0.5, None, 0.5),
        ("valid", None, "valid"),
        (2, "valid", "valid"),
        ("valid", -1, -1),
    ):
        file.write_text(f"{code}    c = config_dict('demo', job)\n    c.eval.popularity = {written!r}\n    return c\n")
        flags = [] if said is None else [f"--config.eval.popularity={said}"]
        found = cli.parse(["main.py", f"--config={file}", *flags]).config.eval.popularity
        assert found == expected
        assert type(found) is (str if isinstance(expected, str) else float)
    config = config_dict("demo")
    other = copy.deepcopy(config)
    other.eval.popularity = "valid"
    assert (resolve(other).eval.popularity, resolve(config).eval.popularity) == ("valid", 0.0)
    with pytest.raises(UserError, match=r"config\.eval\.popularity cannot be a dictionary"):
        cli.parse(["main.py", "--config=demo", "--config.eval.popularity={}"])
