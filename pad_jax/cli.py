"""Command line: flags to a Config, and a user's mistakes to one line each."""

import re
from pathlib import Path
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

from pad_jax.config import Config, resolve
from pad_jax.errors import UserError

DEFAULT = str(Path(__file__).parent.parent / "configs" / "demo.py")


class Arguments(NamedTuple):
    config: Config
    workdir: Path
    coordinator: str
    processes: int
    process: int


def parse(argv: list[str]) -> Arguments:
    """Parses `argv` (program name first). Raises UserError for anything that absl or the config file refuses."""
    values = flags.FlagValues()
    config_file = config_flags.DEFINE_config_file(
        "config", DEFAULT, "FILE:JOB; override fields with --config.FIELD=VALUE", lock_config=True, flag_values=values
    )
    flags.DEFINE_string("workdir", "", "where results go; empty: runs/<dataset>/<choices>", flag_values=values)
    flags.DEFINE_string("coordinator", "", "host:port of process 0, for several processes", flag_values=values)
    flags.DEFINE_integer("processes", 1, "how many processes train together", flag_values=values)
    flags.DEFINE_integer("process", 0, "number of this process", flag_values=values)
    flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=values)
    try:
        rest = values(argv)
    except (flags.Error, AttributeError, KeyError, TypeError, ValueError, OSError, SyntaxError, ImportError) as error:
        raise UserError(_one_line(error)) from error
    if values["help"].value:
        raise SystemExit(values.main_module_help())
    if len(rest) > 1:
        raise UserError(f"unknown argument {rest[1]!r}; settings are given as --config.FIELD=VALUE")
    given = config_flags.get_override_values(values["config"])
    config = resolve(config_file.value, given)
    workdir = values["workdir"].value or default_workdir(config)
    return Arguments(
        config, Path(workdir), values["coordinator"].value, values["processes"].value, values["process"].value
    )


def default_workdir(config: Config) -> str:
    """runs/<dataset>/<method>-<backbone>-<loss>-<recipe>-s<seed>."""
    return f"runs/{config.dataset}/{config.method}-{config.backbone}-{config.loss}-{config.recipe}-s{config.seed}"


def _one_line(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return re.sub(r"^FATAL Flags parsing error: ", "", text)
