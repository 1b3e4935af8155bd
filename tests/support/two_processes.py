"""Runs phases 1 and 2 on the tiny dataset as one of two processes; started by test_run.py."""

import sys
from dataclasses import replace
from pathlib import Path

import jax

table, workdir, port, process = sys.argv[1:]
jax.distributed.initialize(f"localhost:{port}", 2, int(process))

from pad_jax.run import run
from tests.support.data import small_config, tiny_dataset
from tests.support.registries import as_demo

as_demo(tiny_dataset())
config = small_config(**{"text.table": table, "pretrain.epochs": 1, "align.epochs": 1})
for job in ("pretrain", "align"):
    run(replace(config, job=job), Path(workdir))
