"""What is timed: a phase of PAD over a dataset, set up as `pad_jax.training.loop` does, and the same for the peer."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax.traverse_util import flatten_dict

from benchmarks.peer import Peer, draw_negatives
from pad_jax import parallel
from pad_jax.batching.batch import common_caps, make_batch, packer
from pad_jax.batching.device import device_data
from pad_jax.batching.order import Blocks
from pad_jax.config import config_dict, resolve
from pad_jax.data import pantry as prime_pantry
from pad_jax.data.dataset import Dataset, leave_one_out
from pad_jax.methods import METHODS
from pad_jax.settings import Config
from pad_jax.training.loop import SAMPLE, block_of_steps
from pad_jax.training.optimizer import adamw
from pad_jax.training.step import TrainState

#: Phases of PAD and the width of their text.
CASES = {
    "phase 1": ("pretrain", 0),
    "phase 2": ("align", 384),
    "phase 3": ("finetune", 384),
    "phase 3, 4096-d": ("finetune", 4096),
}


def configuration(**fields: Any) -> Config:
    """Recipe `paper` at batch 128, with `fields` (dots as __) on top."""
    given = {"train.batch": 128, "text.transform": "none"} | {k.replace("__", "."): v for k, v in fields.items()}
    config = config_dict("pantry", "all")
    for name, value in given.items():
        *parents, last = name.split(".")
        node = config
        for parent in parents:
            node = node[parent]
        node[last] = value
    return resolve(config, given)


def pantry(config: Config) -> Dataset:
    """Prime Pantry; raises UserError where it cannot be found."""
    return prime_pantry.load(config)


class Numbers(Sequence):
    """Decimal numbers from 0 as names, made when asked for."""

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index):
        return str(range(self.count)[index])


def generated(events: int, items: int) -> Dataset:
    """`events` events over `items` items: users have 5 to 23 events, 9 on average as on Prime Pantry, and items are
    drawn with a probability that falls with their number.
    """
    random = np.random.default_rng(0)
    lengths = 5 + np.minimum(random.geometric(0.2, size=events // 9) - 1, 18)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    drawn = (1 + items * random.random(starts[-1]) ** 3).astype(np.int32)
    names = Numbers(items), Numbers(items), Numbers(len(lengths))
    return Dataset("generated", *names, drawn, starts, leave_one_out(starts))


def random_text(items: int, width: int) -> np.ndarray:
    """A text table [N + 1, E] of random rows of length 1, row 0 zeros: what a step costs does not depend on values."""
    table = np.random.default_rng(0).standard_normal((items + 1, width), np.float32)
    table /= np.linalg.norm(table, axis=1, keepdims=True)
    table[0] = 0
    return table


class Ours:
    """A phase with fresh parameters; `steps()` takes one block of `train.steps_per_dispatch` steps."""

    def __init__(self, config: Config, dataset: Dataset, phase: str, text: np.ndarray | None):
        self.config = config
        self.phase = next(p for p in METHODS["pad"](config).phases if p.name == phase)
        self.scorer = self.phase.scorer(config)
        reads_text = text is not None and self.phase.experts != ("id",)
        host = device_data(dataset, config.data, text if reads_text else None)
        self.lengths = (np.asarray(host.windows) > 0).sum(axis=1)
        self.host = host
        self.data = parallel.replicate(host)
        self.params = self.scorer.init(jax.random.key(0), dataset.items, host.text.shape[1])
        optimizer = adamw(config, self.phase.limits(config))
        step = jnp.zeros((), jnp.int32)
        self.state = parallel.replicate(TrainState(self.params, {}, optimizer.init(self.params), step))
        self.blocks = Blocks(self.lengths, config.train.batch, config.mmd.group, config.train.steps_per_dispatch, 0)
        self.iterator = self.blocks.iterator()
        self.packed = packer(host.windows, jax.device_count(), config.mmd.group)
        _, self.caps = self.packed(self.blocks.rows(-(-SAMPLE // config.train.batch)))
        self.run = parallel.over_devices(block_of_steps(self.phase, self.scorer, config, optimizer))
        self.key = parallel.replicate_key(jax.random.key(1))

    def arguments(self) -> tuple:
        """The arguments of one dispatch, for blocks that are full."""
        count = 0
        while count < self.blocks.steps:
            rows, count = next(self.iterator)
        rows, caps = self.packed(rows)
        self.caps = common_caps(self.caps, caps)
        return self.state, self.data, jnp.int32(count), self.key, parallel.local_rows(rows), self.caps

    def steps(self) -> None:
        self.state, metrics = self.run(*self.arguments())
        jax.block_until_ready((self.state, metrics))

    def loss_and_gradients(self, rows: np.ndarray) -> tuple[float, dict[str, np.ndarray], np.ndarray]:
        """Loss of the batch of users `rows` without dropout, its gradients by name, and the negatives [B, L] drawn."""
        packed, caps = packer(self.host.windows, 1, self.config.mmd.group)(rows[None])
        first = jax.tree.map(lambda x: jnp.asarray(x[0]), packed)
        data = jax.tree.map(jnp.asarray, self.host)
        batch = make_batch(data, first, jnp.int32(0), jax.random.key(2), caps)

        def loss(params, data):
            parts = self.phase.loss(self.scorer, self.config, params, batch, data, None)
            return sum(weight * mean.value for weight, mean in parts.values())

        value, gradients = jax.jit(jax.value_and_grad(loss))(self.params, data)
        named = {name: np.asarray(g) for name, g in flatten_dict(gradients, sep="/").items()}
        negatives = batch.layout.grid.to_grid(batch.negatives.astype(jnp.float32))
        return float(value), named, np.asarray(negatives).astype(int)


class Theirs:
    """The same phase in PyTorch, with the parameters that `ours` has just been given."""

    def __init__(self, ours: Ours):
        self.config, self.length = ours.config, ours.config.data.length
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.align = ours.phase.name == "align"
        params = {name: self.tensor(np.array(x)) for name, x in flatten_dict(ours.params, sep="/").items()}
        text = self.tensor(ours.host.text) if ours.host.text.shape[1] else None
        self.peer = Peer(ours.config, ours.phase.experts, params, text, self.tensor(ours.host.bucket))
        begin, end = ours.host.gap_ends.T  # padded with N, as the windows are with 0
        place = begin[:, None] + np.arange((end - begin).max())
        gaps = np.where(place < end[:, None], ours.host.gaps.take(place, mode="clip"), len(ours.host.bucket) - 1)
        self.windows, self.gaps = self.tensor(ours.host.windows).long(), self.tensor(gaps)
        for x in params.values():
            x.requires_grad_(True)
        limits = ours.phase.limits(ours.config)
        decay = ours.config.train.weight_decay
        self.optimizer = torch.optim.AdamW(params.values(), limits.learning_rate, weight_decay=decay, fused=True)
        self.order = torch.zeros(0, dtype=torch.long)

    def tensor(self, x: Any) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(x)).to(self.device)

    def step(self) -> None:
        batch = self.config.train.batch
        if len(self.order) < batch:
            self.order = torch.randperm(len(self.windows), device=self.device)
        rows, self.order = self.order[:batch], self.order[batch:]
        negatives = draw_negatives(self.gaps[rows], len(self.peer.bucket) - 1, self.length)
        self.optimizer.zero_grad()
        self.peer.loss(self.windows[rows], negatives, self.align).backward()
        self.optimizer.step()

    def steps(self, count: int) -> None:
        for _ in range(count):
            self.step()
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def loss_and_gradients(self, rows: np.ndarray, negatives: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        """As `Ours.loss_and_gradients`, for the same negatives."""
        self.peer.train = False
        loss = self.peer.loss(self.windows[self.tensor(rows).long()], self.tensor(negatives).long(), self.align)
        self.optimizer.zero_grad()
        loss.backward()
        self.peer.train = True
        gradients = {name: x.grad for name, x in self.peer.p.items()}
        self.optimizer.zero_grad()
        return float(loss.detach()), {n: g.cpu().numpy() for n, g in gradients.items() if g is not None}


def parity(ours: Ours, theirs: Theirs, users: int = 32) -> dict[str, float]:
    """Differences of loss (relative) and gradients (norm of the difference over the norm, all leaves together).

    Raises AssertionError above 1e-5 and 1e-4: then the two do not compute the same thing and no time means anything.
    """
    rows = np.random.default_rng(0).permutation(len(ours.lengths))[:users].astype(np.int32)
    loss, gradients, negatives = ours.loss_and_gradients(rows)
    other, others = theirs.loss_and_gradients(rows, negatives)
    flat = np.concatenate([g.ravel() for _, g in sorted(gradients.items())])
    flat_other = np.concatenate([others.get(n, np.zeros(g.shape)).ravel() for n, g in sorted(gradients.items())])
    found = {
        "loss_difference": abs(loss - other) / abs(other),
        "gradient_difference": float(np.linalg.norm(flat - flat_other) / np.linalg.norm(flat_other)),
    }
    if found["loss_difference"] > 1e-5 or found["gradient_difference"] > 1e-4:
        raise AssertionError(f"{ours.phase.name}: ours and the peer differ: {found}")
    return found
