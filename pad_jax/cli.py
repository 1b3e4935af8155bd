"""Command line: flags to a Config, and a user's mistakes to one line each."""

import os
import re
import shlex
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import ConfigDict, config_flags

from pad_jax.config import explain, resolve
from pad_jax.errors import UserError
from pad_jax.files import check_name, check_readable
from pad_jax.registry import REGISTRIES
from pad_jax.settings import RECIPES, Config, aliases
from pad_jax.workdir.identity import home

JOBS = {
    "all": "every phase of the method, evaluation, table; makes what is missing (default)",
    "prepare": "read the dataset and say what is in it",
    "encode": "make the text table of its titles",
    "tune": "train an adapter of the text encoder on these titles, for `text.adapters`",
    "pretrain, align, finetune": "one phase of the method, from the best checkpoint of the one before",
    "evaluate": "rank again with the best checkpoints",
    "recommend": "top-k lists of all users, or of histories in a file; also with items that training never saw",
    "refit": "the same method on every event, for the epochs that the run chose, in <workdir>/refit",
    "search": "settings by trials on the validation split (Optuna), see `search.space`",
    "serve": "the model over HTTP, and a page to explore its lists with",
    "compare": "study: every method under one protocol",
    "backbones": "study: each backbone alone and under PAD",
    "ablate": "study: PAD with one thing changed",
    "analyse": "study: warm to unseen items, distances of items, the learned gate",
}

#: What absl and ml_collections raise for flags that they cannot understand.
_OF_FLAGS = (AttributeError, flags.Error, LookupError, TypeError, ValueError, OSError, SyntaxError, ImportError)


class Arguments(NamedTuple):
    config: Config
    workdir: Path | None  # None: the one that belongs to the configuration
    given: frozenset[str]  # fields that the command line set
    coordinator: str
    processes: int
    process: int
    command: Callable[[str, Path | None], str]  # job, workdir -> the command line that does it with the same settings


def bundled() -> dict[str, Path]:
    """The configurations that come with the package, by name."""
    package = Path(__file__).parent
    folder = next(p for p in (package / "configs", package.parent / "configs") if p.is_dir())
    return {path.stem: path for path in sorted(folder.glob("*.py")) if not path.stem.startswith("_")}


def parse(argv: list[str]) -> Arguments:
    """Parses `argv` (program name first). Raises UserError for anything that absl or the config file refuses."""
    name, path, argv = _with_paths(argv)
    folder = str(path.parent.resolve())
    if folder not in sys.path and path not in bundled().values():
        sys.path.append(folder)  # a config file may import those beside it
    values = flags.FlagValues()
    try:
        file = config_flags.DEFINE_config_file("config", str(bundled()["demo"]), "", flag_values=values, sys_argv=argv)
        flags.DEFINE_string("workdir", "", "", flag_values=values)
        flags.DEFINE_string("coordinator", "", "", flag_values=values)
        flags.DEFINE_integer("processes", 1, "", flag_values=values)
        flags.DEFINE_integer("process", 0, "", flag_values=values)
        flags.DEFINE_string("explain", "", "", flag_values=values)
        flags.DEFINE_boolean("help", False, "", short_name="h", flag_values=values)
        rest = values(argv)
        if values["help"].value:
            print(usage(_program(argv[0])))
            raise SystemExit(0)
        if len(rest) > 1:
            raise UserError(f"unknown argument {rest[1]!r}; settings are given as --config.FIELD=VALUE")
        source = file.value  # registers what the file brings
        if not isinstance(source, ConfigDict):
            raise UserError(f"{path}: get_config(job) must return what config_dict made, not {type(source).__name__}")
        if values["explain"].value:
            print(explain(str(values["explain"].value).removeprefix("config.")))
            raise SystemExit(0)
        overrides = config_flags.get_override_values(values["config"])
        config = resolve(source, overrides)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # a config file is somebody's program
        where = _where(error, path)
        if not where and not isinstance(error, _OF_FLAGS):
            raise
        raise UserError(where + _one_line(error)) from error
    workdir = Path(str(values["workdir"].value)) if values["workdir"].value else None
    check_name(workdir or home(config), "--workdir")
    several: list[Any] = [values[name].value for name in ("coordinator", "processes", "process")]
    coordinator, processes, process = several
    if not 0 <= process < processes or (processes > 1) != bool(coordinator):
        raise UserError(
            f"--coordinator={coordinator} --processes={processes} --process={process}: several processes need "
            "--coordinator=host:port, the same --processes, and each its own --process from 0"
        )

    def command(job: str, workdir: Path | None) -> str:
        settings = [f"--config.{field}={value}" for field, value in overrides.items()]
        place = [f"--workdir={workdir}"] if workdir else []
        return f"{_program(argv[0])} " + shlex.join([f"--config={name}:{job}", *settings, *place])

    given = frozenset(aliases().get(field, field) for field in overrides)
    return Arguments(config, workdir, given, coordinator, processes, process, command)


def configuration(recipe: str, file: str) -> Config:
    """The configuration of a file, or of one by name, in a recipe. Raises UserError as `parse`."""
    try:
        return parse(["pad-jax", f"--config={file}", f"--config.recipe={recipe}"]).config
    except UserError as error:
        raise UserError(f"config.study.datasets: {error}") from error


def usage(program: str) -> str:
    """What --help prints."""
    choices = {f"--config.{kind}": ", ".join(REGISTRIES[kind]) for kind in ("method", "backbone", "loss")}
    choices["--config.recipe"] = "; ".join(f"{name}: {about}" for name, about in RECIPES.items())
    choices["--config.seed"] = "0, 1, .."
    options = {
        "--config=FILE:JOB": f"a file with get_config(job), or one of {', '.join(bundled())}; default demo",
        "--config.FIELD=VALUE": "any other field, e.g. --config.mmd.kernel=laplacian --config.model.width=64",
        "--explain=FIELD": "what is known of a field, of a section, or with `all` of every field",
        "--workdir=DIR": "where results go; default runs/<dataset>/<choices>, with a hash where that is taken by "
        "other settings; recommend, evaluate, refit and serve take their settings from it",
        "--coordinator=HOST:PORT": "of process 0, where several processes train together",
        "--processes=N, --process=I": "how many they are, and which this one is, from 0",
    }
    titled = {"Jobs": JOBS, "Choices": choices, "Flags": options}
    width = max(len(name) for part in titled.values() for name in part)
    lines = [f"{program} [--config=FILE:JOB] [--config.FIELD=VALUE ..]"]
    for title, part in titled.items():
        lines += ["", f"{title}:", *(f"  {name:<{width}}  {about}" for name, about in part.items())]
    lines += ["", "Settings: docs/settings.md, or --explain=all. Without any flag: the demo, from titles to a table."]
    return "\n".join(lines)


def _with_paths(argv: list[str]) -> tuple[str, Path, list[str]]:
    """The configuration as the user named it, its file, and `argv` with that path in place of a bundled one's name."""
    name, file, found = "demo", bundled()["demo"], list(argv)
    for place, argument in enumerate(argv[1:], 1):
        flag, equals, value = argument.partition("=")
        if flag.lstrip("-") != "config" or not flag.startswith("-"):
            continue
        if not equals:
            place += 1
            value = argv[place] if place < len(argv) else ""
        name, colon, job = value.partition(":")
        file = Path(name)
        if not os.path.exists(name):  # also of names that no file can have
            if name not in bundled():
                known = ", ".join(bundled())
                raise UserError(f"--config={name}: there is no such file, and the configurations by name are {known}")
            file = bundled()[name]
            found[place] = (f"{flag}=" if equals else "") + f"{file}{colon}{job}"
        check_readable(file)
    return name, file, found


def _program(path: str) -> str:
    """How this program is started."""
    return f"python {path}" if path.endswith(".py") else Path(path).name


def _where(error: BaseException, file: Path) -> str:
    """The line of the config file that an error came from, if it did."""
    if isinstance(error, SyntaxError):
        return ""  # which says so itself
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename) == file]
    return f"{file}, line {lines[-1]}: " if lines else ""


def _one_line(error: BaseException) -> str:
    meant = re.search(r'Did you mean "(.*?)" instead of "(.*?)"', str(error))
    if meant:
        return f"the configuration has no {meant[2]!r}; did you mean {meant[1]!r}?"
    if "is defined twice" in str(error):
        return "--config stands twice"
    if "has no attribute 'get_config'" in str(error):
        return "the config file has no function get_config(job)"
    if "is not a valid index for <class 'tuple'>" in str(error):
        return f"a tuple is set as a whole, as in --config.eval.ks='(5, 10)': {' '.join(str(error).split())}"
    if isinstance(error, AttributeError):
        return f"unknown field of config: {' '.join(str(error).split())}"
    text = " ".join(str(error).replace("\\n", " ").replace("\\'", "'").split())
    known = isinstance(error, UserError | flags.Error | ValueError | SyntaxError | ImportError)
    return text if text and known else f"{type(error).__name__} {text}".strip()
