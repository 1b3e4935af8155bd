"""Studies: jobs that run many configurations and report on them together."""

from collections.abc import Callable
from pathlib import Path

from pad_jax.settings import Config
from pad_jax.studies import ablate, analyse, backbones, compare
from pad_jax.studies.study import as_job

#: Every study by the name of its job; another one is an entry more.
STUDIES: dict[str, Callable[[Config, Path, str], None]] = {
    "compare": as_job(compare.rows, compare.report),
    "backbones": as_job(backbones.rows, backbones.report),
    "ablate": as_job(ablate.rows, ablate.report),
    "analyse": as_job(analyse.rows, analyse.report),
}
