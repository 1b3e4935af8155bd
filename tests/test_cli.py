"""The command line: what it accepts, and one line with exit code 2 for what it does not."""

import subprocess
import sys

import pytest

from pad_jax import cli
from pad_jax.config import config_dict, resolve
from pad_jax.errors import UserError
from pad_jax.run import main, run
from pad_jax.settings import Config, dotted
from pad_jax.workdir.identity import home, run_name
from tests.support.data import ROOT


def parse(*arguments):
    return cli.parse(["main.py", *arguments])


def test_defaults_are_the_demo():
    arguments = parse()
    assert arguments.config.dataset == "demo"
    assert arguments.config.job == "all"
    assert arguments.config.recipe == "best"
    assert arguments.workdir is None
    assert str(home(arguments.config) / run_name(arguments.config)) == "runs/demo/pad-sasrec-ce-best-s0"


def test_job_and_overrides():
    config = parse(
        f"--config={ROOT}/configs/mind.py:align",
        "--config.train.batch=64",
        "--config.mmd.scales=(0,1)",
        "--config.model.dropout=0",
    ).config
    assert (config.dataset, config.job, config.recipe, config.loss) == ("mind", "align", "paper", "bce")
    assert (config.train.batch, config.mmd.scales, config.model.dropout) == (64, (0, 1), 0.0)


def test_a_recipe_fills_what_the_command_line_leaves_alone():
    official = parse("--config.recipe=official").config
    assert (official.train.batch, official.gate.kind, official.finetune.learning_rate) == (128, "bucket", 1e-4)
    mixed = parse("--config.recipe=official", "--config.gate.kind=shared", "--config.train.batch=16").config
    assert (mixed.train.batch, mixed.gate.kind, mixed.finetune.learning_rate) == (16, "shared", 1e-4)
    assert (official.train.patience, official.text.normalize) == (21, False)


def test_every_recipe_names_known_fields():
    known = dotted(config_dict("demo", "all").to_dict())
    for recipe in ("paper", "official", "best"):
        config = config_dict("demo", "all", recipe=recipe)
        assert isinstance(resolve(config), Config)
        assert set(dotted(config.recipes[recipe].to_dict())) <= set(known)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--config.model.widht=3"], "width"),
        (["--config.recipe=bset"], "did you mean 'best'"),
        (["--config.backbone=sasrek"], "did you mean 'sasrec'"),
        (["--config.loss=bpr"], "one of bce, ce, sampled_softmax"),
        (["--config.mmd.kernel=gausian"], "did you mean 'gaussian'"),
        (["--config.model.width=wide"], "model.width"),
        (["--config.model.width=0"], "config.model.width must be at least 1"),
        (["--config.model.width=33"], "does not divide by config.sasrec.heads"),
        (["--config.model.dropout=1"], "config.model.dropout must be at least 0, below 1"),
        (["--config.model.heads=0"], "config.sasrec.heads must be at least 1"),
        (["--config.seed=-1"], "config.seed must be at least 0"),
        (["--config.data.keep=2"], "config.data.keep must be 0 or at least 3"),
        (["--config.data.length=1"], "config.data.length must be 0 or at least 2"),
        (["--config.eval.targets=all"], "needs a split by time: set config.data.time"),
        (["--config.pretrain.epochs=0"], "config.pretrain.epochs must be at least 1"),
        (["--config.pretrain.learning_rate=0.0"], "config.pretrain.learning_rate must be above 0"),
        (["--config.gate.start=(1.0,2.0)"], "config.gate.start must have 3 numbers"),
        (["--config.mmd.scales=()"], "config.mmd.scales must name one scale or more"),
        (["--config.eval.ks=(5,)"], "config.eval.ks must have 10 among them"),
        (["--processes=2"], "several processes need --coordinator=host:port"),
        (["--coordinator=host:1", "--processes=2", "--process=2"], "each its own --process from 0"),
        (["--coordinator=host", "--processes=2"], "must be host:port of process 0"),
        (["--config.train.select=HR@11"], "did you mean 'HR@1"),
        (["--config=nowhere.py"], "nowhere.py"),
        (["--confg=x"], "confg"),
        (["surplus"], "unknown argument 'surplus'"),
        (["--config.train.batch=10"], "must be a multiple of devices x config.mmd.group"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--config.method=sasrec"] if "batch" in str(arguments) else []
    assert main(["main.py", *small, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    with pytest.raises(UserError, match=message):
        raise UserError(error)
    assert [p for p in tmp_path.glob("**/*") if p.is_file()] == []


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("job", "alignn", "did you mean 'align'"),
        ("method", "pda", "did you mean 'pad'"),
        ("dataset", "x", "one of electronics, demo"),
    ],
)
def test_unknown_choices(field, value, message, make_config, tmp_path):
    with pytest.raises(UserError, match=message):
        run(make_config(**{field: value}), tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_exit_code_of_the_program(tmp_path):
    result = subprocess.run(
        [sys.executable, ROOT / "main.py", "--config.recipe=bset"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 2
    assert (
        result.stderr == "error: config.recipe='bset' is unknown: one of paper, official, best; did you mean 'best'?\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import nothing_of_this_name", "shop.py, line 1: No module named 'nothing_of_this_name'"),
        ("x = 1", "the config file has no function get_config(job)"),
        (
            "from pad_jax.config import config_dict\n\n\ndef get_config(job=''):\n    return config_dict('d', decay=2)",
            "config_dict has no choice 'decay': set fields of sections as config.SECTION.decay = ..",
        ),
        (
            "from pad_jax.config import config_dict\n\n\ndef get_config(job='all'):\n    c = config_dict('d')\n"
            "    c.model.widht = 3\n    return c",
            "config.model.widht is not a field; did you mean 'model.width'?",
        ),
    ],
)
def test_a_config_file_with_a_fault_is_one_line(tmp_path, monkeypatch, capsys, code, message):
    monkeypatch.delitem(sys.modules, "config_config", raising=False)  # a program loads one file, once
    (tmp_path / "shop.py").write_text(code + "\n")
    assert main(["main.py", f"--config={tmp_path}/shop.py"]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_a_config_file_may_import_those_beside_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "own_parts_beside.py").write_text("EPOCHS = 7\n")
    (tmp_path / "both.py").write_text(
        "import own_parts_beside\nfrom pad_jax.config import config_dict\n\n\ndef get_config(job='all'):\n"
        "    config = config_dict('demo', job)\n    config.pretrain.epochs = own_parts_beside.EPOCHS\n"
        "    return config\n"
    )
    assert cli.parse(["main.py", f"--config={tmp_path}/both.py"]).config.pretrain.epochs == 7
