"""The package as others install it."""

import tomllib
from pathlib import Path

from pad_jax import __version__, cli
from pad_jax.run import main
from tests.support.data import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def lines(name):
    return [line for line in (ROOT / name).read_text().splitlines() if line and not line.startswith("#")]


def test_requirements_are_those_of_the_package():
    """requirements.txt is everything that running takes, requirements-dev.txt everything that tests take."""
    extras = PROJECT["project"]["optional-dependencies"]
    assert lines("requirements.txt") == [*PROJECT["project"]["dependencies"], *extras["text"]]
    assert lines("requirements-cuda.txt") == ["-r requirements.txt", *extras["cuda"]]
    dev = [line for line in extras["dev"] if not line.startswith("pad_jax[")]
    assert sorted(lines("requirements-dev.txt")) == sorted(
        ["-r requirements.txt", *dev, *extras["docs"], *extras["search"]]
    )


def test_every_package_and_every_configuration_is_in_the_wheel():
    listed = set(PROJECT["tool"]["setuptools"]["packages"])
    found = {str(p.parent.relative_to(ROOT)).replace("/", ".") for p in (ROOT / "pad_jax").rglob("__init__.py")}
    assert listed == found | {"pad_jax.configs"}
    assert PROJECT["tool"]["setuptools"]["package-dir"]["pad_jax.configs"] == "configs"


def test_one_version_everywhere():
    assert f"version: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"\n## {__version__}\n" in (ROOT / "CHANGELOG.md").read_text()


def test_configurations_go_by_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert set(cli.bundled()) == {path.stem for path in (ROOT / "configs").glob("*.py")}
    for form in (["--config=pantry:align"], ["--config", "pantry:align"], ["-config=pantry:align"]):
        arguments = cli.parse(["pad-jax", *form, "--config.seed=3"])
        assert (arguments.config.dataset, arguments.config.job, arguments.config.seed) == ("pantry", "align", 3)
        assert arguments.command("all", None).startswith("pad-jax --config=pantry:all --config.seed=3")
    Path("pantry").write_text(
        "from pad_jax.config import config_dict\n\n\ndef get_config(job='all'):\n    return config_dict('demo', job)\n"
    )
    assert cli.parse(["pad-jax", "--config=pantry"]).config.dataset == "demo"  # a path that exists goes first
    assert main(["pad-jax", "--config=nowhere.py"]) == 2
    assert "there is no such file, and the configurations by name are beauty, demo" in capsys.readouterr().err
