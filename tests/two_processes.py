"""Runs phases 1 and 2 on the tiny dataset as one of two processes; started by test_run.py."""

import sys
from dataclasses import replace
from pathlib import Path

import jax

table, workdir, port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process))

from pad_jax.config import config_dict, resolve
from pad_jax.data import READERS
from pad_jax.run import run
from tests.conftest import SMALL, set_fields, tiny_dataset

READERS["demo"] = lambda _: tiny_dataset()
fields = SMALL | {"text.table": table, "pretrain.epochs": 1, "align.epochs": 1}
config = config_dict("demo", "all")
set_fields(config, fields)
resolved = resolve(config, fields)
for job in ("pretrain", "align"):
    run(replace(resolved, job=job), Path(workdir))
