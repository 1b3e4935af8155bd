"""Names that can be chosen: who may register them, and what an unknown one says."""

import runpy

import pytest

from pad_jax.config import config_dict, resolve
from pad_jax.errors import UserError
from pad_jax.losses.mmd import MmdSettings
from pad_jax.losses.recommendation import LOSSES, Loss
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.experts import EXPERTS, Expert
from pad_jax.registry import REGISTRIES, Registry
from pad_jax.settings import specs
from tests.support.registries import restored

KINDS = {"method", "expert", "backbone", "gate", "loss", "kernel", "metric", "reader", "transform"}


@pytest.fixture(autouse=True)
def _as_before():
    with restored():
        yield


def test_everything_that_can_be_chosen_has_a_registry():
    assert set(REGISTRIES) >= KINDS
    assert all(len(REGISTRIES[kind]) for kind in KINDS)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_an_unknown_name_lists_the_known_ones(kind):
    known = next(iter(REGISTRIES[kind]))
    with pytest.raises(UserError, match=rf"(?s)is unknown: one of .*{known}.*did you mean '{known}'\?"):
        REGISTRIES[kind][known + "x"]


def test_the_file_that_registered_a_name_may_do_so_again_and_another_may_not(tmp_path):
    things = Registry("thing")
    code = "def register(things, value):\n    return things.register('one', value)\n"
    for name in ("first", "second"):
        (tmp_path / f"{name}.py").write_text(code)
    first, second = (runpy.run_path(str(tmp_path / f"{name}.py"))["register"] for name in ("first", "second"))
    assert first(things, 1) == 1
    first(things, 2)
    assert things["one"] == 2
    assert things.entry("one").source == str(tmp_path / "first.py")
    with pytest.raises(UserError, match=r"thing 'one' of .*second\.py is there already, from .*first\.py"):
        second(things, 3)
    assert things["one"] == 2


def test_a_cell_of_a_notebook_may_be_run_twice():
    things = Registry("thing")
    cell = {"__name__": "__main__", "things": things}
    for value in (1, 2):
        exec(f"things.register('one', {value})", cell)
    assert things["one"] == 2
    assert things.entry("one").source == "__main__"


def test_a_decorator_registers_and_returns():
    things = Registry("thing")

    @things.register("one")
    def one():
        return 1

    assert one() == 1
    assert things["one"] is one


@pytest.mark.parametrize("name", ["", "a.b", "1st", "a b"])
def test_a_name_that_nobody_could_write_is_refused(name):
    with pytest.raises(UserError, match="cannot name a thing"):
        Registry("thing").register(name, 1)


SETTINGS = """
from dataclasses import dataclass
from pad_jax.models.backbones import BACKBONES
from pad_jax.settings import setting

@dataclass(frozen=True)
class Mine:
    sharpness: float = setting(2.0, "how sharp", "O", unit="per unit", least=0, best=3.0)

BACKBONES.register("{name}", print, settings=Mine)
"""


@pytest.mark.parametrize(
    ("name", "section"),
    [("mine", "mine"), ("train", "backbones.train"), ("text", "backbones.text"), ("loss", "backbones.loss")],
)
def test_settings_of_an_entry_are_a_section(tmp_path, name, section):
    """Of the entry's name, or below its kind where that name is taken; registering again keeps the place."""
    (tmp_path / "mine.py").write_text(SETTINGS.format(name=name))
    for _ in range(2):
        runpy.run_path(str(tmp_path / "mine.py"))
    field = f"{section}.sharpness"
    assert field in specs()
    assert sum(n.endswith(".sharpness") for n in specs()) == 1
    for recipe, value in (("paper", 2.0), ("best", 3.0)):
        config = resolve(config_dict("demo", recipe=recipe))
        for part in section.split("."):
            config = getattr(config, part)
        assert config.sharpness == value
    source = config_dict("demo")
    node = source
    for part in section.split("."):
        node = node[part]
    node.sharpness = -1.0
    with pytest.raises(UserError, match=rf"config\.{field} must be at least 0, not -1.0"):
        resolve(source, [field])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('setting(2.0, "how sharp", "O", unit="per unit", least=0, best=3.0)', "2.0"), "'sharpness' is not made by"),
        (("(frozen=True)", ""), "it must be a frozen dataclass"),
    ],
)
def test_settings_that_are_none_are_refused(tmp_path, change, message):
    code = SETTINGS.format(name="mine")
    assert change[0] in code
    (tmp_path / "mine.py").write_text(code.replace(*change))
    with pytest.raises(UserError, match=f"the settings of the backbone 'mine': .*{message}"):
        runpy.run_path(str(tmp_path / "mine.py"))
    assert "mine" not in BACKBONES


@pytest.mark.parametrize("kind", ["kernel", "metric"])
def test_what_never_sees_the_configuration_has_no_settings(kind):
    with pytest.raises(UserError, match=f"the {kind} 'mine' cannot have settings"):
        REGISTRIES[kind].register("mine", object(), settings=MmdSettings)
    assert "mine" not in REGISTRIES[kind]


def test_a_loss_has_its_section_below_losses():
    LOSSES.register("text", Loss(print, "catalogue"), settings=MmdSettings)
    assert "losses.text.weight" in specs()


def test_a_section_may_hold_fields_and_sections(tmp_path):
    """`experts` has settings of its own, and an expert whose name is taken goes below it."""
    code = SETTINGS.format(name="train").replace(
        "models.backbones import BACKBONES", "models.experts import EXPERTS, Expert"
    )
    code = code.replace('BACKBONES.register("train", print,', 'EXPERTS.register("train", Sharp(),')
    code = code.replace("@dataclass", "class Sharp(Expert):\n    key = 500\n\n@dataclass")
    (tmp_path / "mine.py").write_text(code)
    runpy.run_path(str(tmp_path / "mine.py"))
    config = resolve(config_dict("demo", recipe="best"))
    assert config.experts.train.sharpness == 3.0
    assert config.experts.copy_encoder


def test_an_expert_without_a_key_is_refused():
    class Keyless(Expert):
        pass

    with pytest.raises(UserError, match="the expert 'keyless' has no key: give its class a whole number from 100 on"):
        EXPERTS.register("keyless", Keyless())
