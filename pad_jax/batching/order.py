"""The order of users: blocks of row numbers from the host."""

import grain
import numpy as np
from jaxtyping import Int, Int32


class Blocks:
    """The order of users: an endless grain stream of blocks of K batches, a new one every epoch.

    Users are sorted by history length, cut into `group` strata of neighbours, and dealt at random: each `group` rows
    of a batch hold one user of every stratum. Groups are dealt to batches by their events in the same way. All samples
    of the alignment loss so have about the same number of events, and all batches nearly exactly: the lists of a
    batch, whose sizes are static, need no room for an unusual one.

    Differs: the paper and the official code shuffle all users.

    An epoch is every user once, or as often as it takes to make `least` batches. Rows without a user make up the
    number: some in its batches, and the batches that its last block lacks.
    """

    def __init__(self, lengths: Int[np.ndarray, " U"], batch: int, group: int, steps: int, seed: int, least: int = 1):
        self.lengths, self.batch, self.group = lengths, batch, group
        once = -(-len(lengths) // batch)
        self.passes = -(-least // once)
        self.epoch_steps = self.passes * once
        self.blocks = -(-self.epoch_steps // steps)
        self.steps = -(-self.epoch_steps // self.blocks)
        self._seed = seed
        self._epoch = (-1, np.zeros((0, batch), np.int32))
        self._stream = grain.MapDataset.range(self.blocks).repeat().map_with_index(self._block)

    def rows(self, batches: int) -> Int32[np.ndarray, "S B"]:
        """The first `batches` batches."""
        return np.concatenate([self._epoch_rows(e) for e in range(-(-batches // self.epoch_steps))])[:batches]

    def _epoch_rows(self, epoch: int) -> Int32[np.ndarray, "S B"]:
        """All batches of an epoch; -1 where there is no user."""
        if self._epoch[0] != epoch:
            random = np.random.default_rng([self._seed, epoch])
            rows = np.full((self.blocks * self.steps, self.batch), -1, np.int32)
            rows[: self.epoch_steps] = np.concatenate([self._pass(random) for _ in range(self.passes)])
            self._epoch = (epoch, rows)
        return self._epoch[1]

    def _pass(self, random: np.random.Generator) -> Int32[np.ndarray, "S B"]:
        """Every user once."""
        groups = _deal(self.lengths, self.group, random)
        events = np.where(groups >= 0, self.lengths[groups], 0).sum(axis=1)
        batches = _deal(events, self.batch // self.group, random)
        return np.where(batches[..., None] >= 0, groups[batches], -1).reshape(len(batches), -1)

    def _block(self, index: int, _: int) -> tuple[Int32[np.ndarray, "K B"], int]:
        epoch, block = divmod(index, self.blocks)
        rows = self._epoch_rows(epoch)[block * self.steps : (block + 1) * self.steps]
        return rows, min(self.steps, self.epoch_steps - block * self.steps)

    def iterator(self):
        """A grain iterator of (rows [K, B], number of batches that hold users); its state goes into checkpoints."""
        return iter(self._stream.to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=1)))


def _deal(size: Int[np.ndarray, " n"], count: int, random: np.random.Generator) -> Int[np.ndarray, "hands count"]:
    """Deals 0..n-1 at random into hands of `count`, one of every stratum by `size`; -1 makes up the number."""
    hands = -(-len(size) // count)
    order = random.permutation(len(size)).astype(np.int32)
    order = order[np.argsort(size[order], kind="stable")]
    strata = np.concatenate([np.full(hands * count - len(size), -1, np.int32), order]).reshape(count, hands)
    return random.permuted(strata, axis=1).T
