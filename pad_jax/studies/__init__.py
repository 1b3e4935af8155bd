"""Studies: jobs that run many configurations and report on them together."""

from collections.abc import Callable
from pathlib import Path

from pad_jax.settings import Config
from pad_jax.studies import ablate, analyse, backbones, compare, judgement
from pad_jax.studies.study import Read, as_job

#: Every study by the name of its job; another one is an entry more.
STUDIES: dict[str, Callable[[Config, Path, str, Read], None]] = {
    "compare": as_job(compare.rows, compare.report, front=judgement.front),
    "backbones": as_job(backbones.rows, backbones.report),
    "ablate": as_job(ablate.rows, ablate.report, needs=("pad",), front=judgement.front),
    "analyse": as_job(analyse.rows, analyse.report, needs=None),
}
