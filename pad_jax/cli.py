"""Command line: flags to a Config, and a user's mistakes to one line each."""

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from absl import flags
from ml_collections import config_flags

from pad_jax.config import Config, resolve
from pad_jax.errors import UserError
from pad_jax.studies import STUDIES
from pad_jax.workdir import run_name

DEFAULT = str(Path(__file__).parent.parent / "configs" / "demo.py")


class Arguments(NamedTuple):
    config: Config
    workdir: Path
    coordinator: str
    processes: int
    process: int
    command: Callable[[str], str]  # job -> the command line that does it with the same settings


def parse(argv: list[str]) -> Arguments:
    """Parses `argv` (program name first). Raises UserError for anything that absl or the config file refuses."""
    values = flags.FlagValues()
    try:
        file = config_flags.DEFINE_config_file(
            "config", DEFAULT, "FILE:JOB; override fields with --config.FIELD=VALUE", flag_values=values, sys_argv=argv
        )
        flags.DEFINE_string("workdir", "", "where results go; empty: runs/<dataset>/<choices>", flag_values=values)
        flags.DEFINE_string("coordinator", "", "host:port of process 0, for several processes", flag_values=values)
        flags.DEFINE_integer("processes", 1, "how many processes train together", flag_values=values)
        flags.DEFINE_integer("process", 0, "number of this process", flag_values=values)
        flags.DEFINE_boolean("help", False, "show the flags", short_name="h", flag_values=values)
        rest = values(argv)
        if values["help"].value:
            print(values.main_module_help())
            raise SystemExit(0)
        if len(rest) > 1:
            raise UserError(f"unknown argument {rest[1]!r}; settings are given as --config.FIELD=VALUE")
        overrides = config_flags.get_override_values(values["config"])
        config = resolve(file.value.copy_and_resolve_references(), overrides)
    except AttributeError as error:
        raise UserError(f"unknown field of config: {_one_line(error)}") from error
    except (flags.Error, KeyError, TypeError, ValueError, OSError, SyntaxError, ImportError) as error:
        raise UserError(_one_line(error)) from error
    workdir = Path(values["workdir"].value or default_workdir(config))
    given: list[Any] = [values[name].value for name in ("coordinator", "processes", "process")]
    coordinator, processes, process = given
    if not 0 <= process < processes or (processes > 1) != bool(coordinator):
        raise UserError(
            f"--coordinator={coordinator} --processes={processes} --process={process}: several processes need "
            "--coordinator=host:port, the same --processes, and each its own --process from 0"
        )

    def command(job: str) -> str:
        name = str(config_flags.get_config_filename(values["config"])).partition(":")[0]
        settings = [f"--config.{field}={value}" for field, value in overrides.items()]
        return shlex.join(["python", argv[0], f"--config={name}:{job}", *settings, f"--workdir={workdir}"])

    return Arguments(config, workdir, coordinator, processes, process, command)


def default_workdir(config: Config) -> str:
    """runs/<dataset>, and for a run of one method the folder that belongs to it there."""
    folder = f"runs/{config.dataset}"
    return folder if config.job in STUDIES else f"{folder}/{run_name(config)}"


def _one_line(error: Exception) -> str:
    text = str(error).replace("\\n", " ").replace("\\'", "'")
    return " ".join(text.split()) or type(error).__name__
