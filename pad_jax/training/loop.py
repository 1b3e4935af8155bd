"""A phase: blocks of steps on the device, an evaluation per epoch, early stopping, checkpoints."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from pad_jax import parallel, sealed
from pad_jax.batching.batch import common_caps, make_batch, packer
from pad_jax.batching.device import DeviceData
from pad_jax.batching.order import Blocks
from pad_jax.console import progress, say
from pad_jax.errors import UserError
from pad_jax.files import write_atomically
from pad_jax.models.scorer import Scorer
from pad_jax.registry import SECTIONS
from pad_jax.sealed import DamagedError
from pad_jax.settings import Config, setting
from pad_jax.training import memory
from pad_jax.training.checkpoint import Checkpoints
from pad_jax.training.optimizer import adamw
from pad_jax.training.phase import Phase
from pad_jax.training.step import TrainState, gradient_norms, merge, train_step

SAMPLE = 1 << 16  # users whose batches' sizes are looked at beforehand


@dataclass(frozen=True)
class TrainSettings:
    batch: int = setting(
        16, "users per step, on all devices together", "P", least=1, below=2**24, official=128, best=128
    )
    patience: int = setting(
        10,
        "epochs without a better validation value",
        "P; the official code stops after more than 20",
        unit="epochs",
        least=1,
        official=21,
        best=5,
    )
    select: str = setting("HR@10", "validation metric of early stopping and best checkpoint", "C", best="nDCG@10")
    weight_decay: float = setting(0.1, "of AdamW, decoupled", "P", least=0)
    gate_rate: float = setting(1.0, "times learning_rate for the gate, but where a method has its own", least=0)
    gate_weight_decay: float = setting(0.01, "torch's default", "C", least=0)
    steps_per_dispatch: int = setting(32, "K, batches per call of the device", "O", least=1, below=2**16)
    adjustment: float = setting(
        0.0,
        "tau: training adds tau * log(count) to logits of text, see methods/base.py; 0: no",
        "V in recipe best",
        least=0,
        best=0.2,
    )
    start_scale: float = setting(
        1.0,
        "what the rows of items that config.start brings are multiplied by; below 1 training overfits less to what the "
        "earlier model has seen",
        "O; Ash and Adams 2020 shrink all parameters",
        above=0,
    )
    sampled: int = setting(512, "items drawn per step for a loss that needs samples", "O", least=1, below=2**24)


SECTIONS.register("train", TrainSettings)


class DivergedError(UserError):
    """Training left the numbers: what it was given was too much, most often its learning rate."""


#: All parameters -> metrics on the validation split.
Evaluate = Callable[[dict[str, Any]], dict[str, Any]]


class Epoch(NamedTuple):
    """What a callback is told of an epoch that is finished and on disk."""

    phase: str
    epoch: int  # from 1
    losses: dict[str, float]  # of training: `loss` and its parts
    valid: dict[str, Any]  # metrics on the validation split, as `results.json` has them
    best_epoch: int  # of the phase so far


#: What is called after each epoch; True ends the phase there.
Callback = Callable[[Epoch], bool | None]


def block_of_steps(phase: Phase, scorer: Scorer, config: Config, optimizer) -> Callable[..., Any]:
    """K steps, to be mapped over devices: (state, data, count, key, rows [K, B], caps) -> state, sums of metrics.

    Steps from `count` on hold no users and are not taken.
    """

    @partial(jax.jit, static_argnames="caps", inline=True)  # traced once, for its shapes and for the loop
    def step(index, state, data, key, rows, caps):
        batch, loss_key = _batch(index, state, data, key, rows, caps)
        return train_step(phase.loss, optimizer, scorer, config, state, batch, data, loss_key, axis=parallel.AXIS)

    def block(state: TrainState, data: DeviceData, count, key, rows, caps):
        def body(index, carry):
            state, sums = carry
            state, metrics = step(index, state, data, key, rows, caps=caps)
            return state, jax.tree.map(jnp.add, sums, metrics)

        _, shapes = jax.eval_shape(partial(step, caps=caps), 0, state, data, key, rows)
        return jax.lax.fori_loop(0, count, body, (state, jax.tree.map(lambda s: jnp.zeros(s.shape, s.dtype), shapes)))

    return block


def _batch(index, state: TrainState, data: DeviceData, key, rows, caps):
    """The batch of step `index` of a block on this device, and the key of its loss."""
    first_row = jax.lax.axis_index(parallel.AXIS) * rows.user.shape[1]
    negative_key, loss_key = jax.random.split(jax.random.fold_in(key, state.step))
    return make_batch(data, jax.tree.map(lambda x: x[index], rows), first_row, negative_key, caps), loss_key


def weigh(phase: Phase, scorer: Scorer, config: Config, *arguments: Any) -> dict[str, float]:
    """`gradient_norms` of the first step of a block, of whose arguments these are; says them."""

    def first(state, data, _, key, rows, caps):
        batch, loss_key = _batch(0, state, data, key, rows, caps)
        return gradient_norms(phase.loss, scorer, config, state, batch, data, loss_key, parallel.AXIS)

    norms = {name: parallel.scalar(x) for name, x in parallel.over_devices(first, donate=False)(*arguments).items()}
    say(f"{phase.name}: gradient norms at the first step: " + ", ".join(f"{n} {x:.3g}" for n, x in norms.items()))
    return norms


def train(
    config: Config,
    phase: Phase,
    scorer: Scorer,
    params: dict[str, Any],
    frozen: dict[str, Any],
    data: DeviceData,
    evaluate: Evaluate | None,
    log: Path,
    checkpoints: Checkpoints,
    callbacks: Sequence[Callback] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Trains a phase to its end, from its latest checkpoint if there is one.

    Args:
        config: the run's.
        phase: what is trained.
        scorer: of the phase.
        params: what it starts with and trains.
        frozen: what it carries along.
        data: what stays on the device.
        evaluate: metrics of all parameters on the validation split; None: there is none, so every epoch is better than
            the one before, and a phase that learns from its events is left as it begins.
        log: the file of its metrics, one line an epoch.
        checkpoints: where it goes on from, and saves to.
        callbacks: called after each epoch; where one returns True, the phase ends.

    Returns all parameters of the best epoch and {"epochs", "best_epoch", "updates", "seconds", "stopped": "patience" |
    "epochs" | "minutes" | "callback" | "held out"}, and where the phase is `weighed` "gradient_norms".

    Raises DivergedError when the loss or a parameter is not finite; the last good checkpoint stays.
    """
    windows = np.asarray(parallel.first_replica(data.windows))
    blocks = Blocks(
        (windows > 0).sum(axis=1),
        config.train.batch,
        config.mmd.group,
        config.train.steps_per_dispatch,
        config.seed,
        phase.steps,
    )
    optimizer = adamw(config, phase.limits(config))
    state = parallel.replicate(TrainState(params, frozen, optimizer.init(params), jnp.zeros((), jnp.int32)))
    key = parallel.replicate_key(jax.random.fold_in(jax.random.key(config.seed), 1))
    packed = packer(windows, parallel.devices(), config.mmd.group, config.mmd.include_padding)
    sample = blocks.rows(-(-SAMPLE // config.train.batch))
    _, usual = packed(sample)  # one shape for nearly every block: another one is compiled anew
    run = parallel.over_devices(block_of_steps(phase, scorer, config, optimizer))
    iterator = blocks.iterator()
    status: dict[str, Any] = {"epoch": 0, "best_epoch": 0, "best": 0.0, "seconds": 0.0, "log": sealed.digest([])}
    latest = checkpoints.latest()
    if latest is not None:
        state, position, status = checkpoints.restore(latest, state)
        iterator.set_state(position)
        say(f"{phase.name}: continues after epoch {latest}")
    lines = _lines(log, status)
    checked = False
    started = time.monotonic() - status["seconds"]
    stopped = _stop(config, phase, status)
    if evaluate is None and phase.held_out:
        stopped = "held out"
        if latest is None:
            checkpoints.save(0, state, iterator.get_state(), status)
    while not stopped:
        epoch = status["epoch"] + 1
        sums: list[tuple[int, Any]] = []
        seen = data
        if phase.each_epoch is not None:
            seen = phase.each_epoch(scorer, config, merge(state.params, state.frozen), data)
        with progress(f"{phase.name} epoch {epoch}", blocks.epoch_steps) as bar:
            for _ in range(blocks.blocks):
                rows, count = next(iterator)
                rows, caps = packed(rows)
                caps = common_caps(usual, caps)
                arguments = (state, seen, jnp.int32(count), key, parallel.local_rows(rows), caps)
                if phase.weighed and not status["epoch"] and not sums:
                    status["norms"] = weigh(phase, scorer, config, *arguments)
                if not checked:
                    memory.check(run, arguments, aloud=not phase.start)  # once in a run
                    checked = True
                state, metrics = run(*arguments)
                sums.append((count, metrics))
                if len(sums) > 1:  # read one block late, so that the device never waits for the host
                    bar.advance(sums[-2][0], f"loss {_mean(sums[-2:-1])['loss']:.4f}")
        losses = _mean(sums)
        size = parallel.scalar(jax.jit(optax.tree.norm)(state.params))
        if not np.isfinite([losses["loss"], size]).all():
            kept = f"the checkpoint of epoch {epoch - 1} is kept" if epoch > 1 else "there is no checkpoint yet"
            raise DivergedError(
                f"{phase.name}: loss {losses['loss']} or the norm of the parameters {size} is not finite in epoch "
                f"{epoch}; {kept}; lower config.{phase.name}.learning_rate"
                + (" in a new --workdir" if epoch > 1 else "")
            )
        result, value = {}, float(epoch)
        if evaluate is not None:
            result = evaluate(merge(state.params, state.frozen))
            value = -losses["loss"] if phase.by_loss else result[config.train.select]
        better, before = not status["best_epoch"] or value > status["best"], status["seconds"]
        status |= {
            "epoch": epoch,
            "best_epoch": epoch if better else status["best_epoch"],
            "best": value if better else status["best"],
            "seconds": time.monotonic() - started,
            "log": "",
        }
        select = config.train.select
        judged = ""
        if result:
            chosen = "" if phase.by_loss or select in ("HR@10", "nDCG@10") else f", {select} {result[select]:.4f}"
            judged = f", valid HR@10 {100 * result['HR@10']:.2f} %, nDCG@10 {100 * result['nDCG@10']:.2f} %{chosen}"
            judged += " *" if better else ""
        say(
            f"{phase.name} epoch {epoch}: loss {losses['loss']:.4f}{judged}; {status['seconds'] - before:.1f} s, "
            f"{status['seconds']:.0f} s in all"
        )
        valid = {"valid": result} if result else {}
        lines.append(json.dumps({"epoch": epoch, "seconds": status["seconds"], **losses, **valid}))
        status["log"] = sealed.digest(lines)
        if parallel.is_main():
            write_atomically(log, "".join(line + "\n" for line in lines).encode())
        checkpoints.save(epoch, state, iterator.get_state(), status)
        told = Epoch(phase.name, epoch, losses, result, status["best_epoch"])
        asked = [bool(callback(told)) for callback in callbacks]  # all of them are called
        stopped = _stop(config, phase, status) or ("callback" if any(asked) else "")
    params, frozen = checkpoints.parameters(status["best_epoch"])
    summary = {name: status[name] for name in ("best_epoch", "seconds", "log")} | {"epochs": status["epoch"]}
    summary |= {"gradient_norms": status["norms"]} if "norms" in status else {}
    return merge(params, frozen), summary | {"updates": status["epoch"] * blocks.epoch_steps, "stopped": stopped}


def _stop(config: Config, phase: Phase, status: dict[str, Any]) -> str:
    """Why training stops here, or an empty string."""
    if status["epoch"] - status["best_epoch"] >= config.train.patience:
        return "patience"
    minutes = phase.limits(config).minutes
    if minutes and status["seconds"] >= 60 * minutes:
        return "minutes"
    return "epochs" if status["epoch"] >= phase.limits(config).epochs else ""


def _mean(sums: list[tuple[int, Any]]) -> dict[str, float]:
    count = sum(c for c, _ in sums)
    return {name: float(sum(parallel.scalar(s[name]) for _, s in sums)) / count for name in sums[0][1]}


def _lines(log: Path, status: dict[str, Any]) -> list[str]:
    """The lines of the log, one an epoch, up to the last checkpoint: a killed run may have written one more.

    Raises DamagedError for other ones than were written.
    """
    lines: list[str] = []
    if parallel.is_main():
        cure = f"put it back, or remove {log.parent} to train its phase again"
        try:
            lines = sealed.read_bytes(log, cure).decode().splitlines()[: status["epoch"]] if status["epoch"] else []
        except UnicodeDecodeError as error:
            raise DamagedError(log, "is not UTF-8", cure) from error
        if status.get("log", sealed.digest(lines)) != sealed.digest(lines):
            raise DamagedError(log, f"is not the log of the {status['epoch']} epochs that the checkpoint has", cure)
        write_atomically(log, "".join(line + "\n" for line in lines).encode())
    return lines
