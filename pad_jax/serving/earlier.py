"""What training begins with where `config.start` names an earlier run: the parameters of its model, item by item."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Int

from pad_jax import sealed
from pad_jax.errors import UserError
from pad_jax.models.backbones import BACKBONES
from pad_jax.models.experts import EXPERTS
from pad_jax.serving.artifact import Artifact
from pad_jax.settings import Config, as_before, as_dict, dotted
from pad_jax.training.phase import Method, Phase

#: Fields of sections that count below, and yet say nothing of what parameters mean.
_FREE = ("model.dropout", "model.dtype", "model.id_std", "model.log_scale", "text.table", "text.batch", "text.keep_in")


@dataclass(frozen=True)
class Earlier:
    """The model of an earlier run. An expert begins with what it has of it in the first phase that has the expert.

    Rows of tables go by item id. An item that the earlier run did not know has the row that it would have without it,
    and one that is gone takes its row along. The gate comes along where it is one of the same experts. Optimizer
    moments and everything that is counted (buckets, next-item counts) are the new run's own.
    """

    path: str
    artifact: Artifact
    sha256: str

    @classmethod
    def load(cls, path: str) -> "Earlier":
        """Of a workdir, or of its folder `model/`. Raises UserError where there is no such model."""
        found = [p for p in (Path(path), Path(path) / "model") if os.path.lexists(p / "model.safetensors")]
        if not found:
            raise UserError(f"config.start={path} holds no model: name the workdir of a finished run, or its model/")
        artifact = Artifact.load(found[0])
        content = sealed.read_bytes(found[0] / "model.safetensors", "name another with --config.start")
        return cls(path, artifact, hashlib.sha256(content).hexdigest())

    def experts(self, method: Method) -> tuple[str, ...]:
        """Those of a method that the earlier model has and training moves."""
        return tuple(e for e in method.experts if e in self.artifact.scorer.experts and EXPERTS[e].learns)

    def check(self, config: Config, method: Method) -> None:
        """Raises UserError for a configuration under which the earlier parameters mean something else."""
        theirs, ours = (json.loads(json.dumps(dotted(as_dict(c)))) for c in (self.artifact.scorer.config, config))
        shared = self.experts(method)
        if not shared:
            raise UserError(
                f"config.start={self.path} has the experts {', '.join(self.artifact.scorer.experts)}, and "
                f"config.method={config.method} has none of them but {', '.join(method.experts)}"
            )
        sections = ["model.", f"{BACKBONES.entry(config.backbone).section}."]
        sections += ["text."] if method.reads_text and self.artifact.text.width else []
        names = ["backbone", "data.length"]
        names += [n for n in as_before() if n.startswith(tuple(sections)) and n not in _FREE]
        other = next((n for n in names if ours.get(n) != theirs.get(n)), None)
        if other:
            raise UserError(
                f"config.start={self.path} was made with config.{other}={theirs.get(other)!r}, not {ours[other]!r}: "
                "set that, or start from another run"
            )
        for name in shared:
            if EXPERTS[name].kept and not EXPERTS[name].by_item:
                raise UserError(
                    f"config.start={self.path}: rows of the expert {name} are of what it has learned from the texts of "
                    "that run, so none can start from them: leave config.start out"
                )
            if EXPERTS[name].columns and name not in self.artifact.tables:
                raise UserError(f"config.start={self.path} has no ID tables: an earlier version made it; train it anew")

    def begin(
        self, method: Method, phase: Phase, params: dict[str, Any], item_ids: Sequence[str], scale: float = 1.0
    ) -> tuple[dict[str, Any], set[str]]:
        """(parameters of a phase, paths of those that are the earlier model's) from those it would begin with else.

        Rows of items are multiplied by `scale`.

        Raises UserError where shapes differ.
        """
        model = self.artifact
        before = {e for p in method.phases[: method.phases.index(phase)] for e in p.experts}
        experts = [e for e in self.experts(method) if e in phase.experts and e not in before]
        flat = flatten_dict(params, sep="/")
        theirs = flatten_dict({**model.params, "tables": model.tables}, sep="/")
        same_gate = (
            phase.experts == model.scorer.experts and phase.scorer(model.scorer.config).gate == model.scorer.gate
        )
        rows = self.rows(item_ids)
        carried = set()
        for name, values in flat.items():
            part, _, rest = name.partition("/")
            expert = rest.partition("/")[0]
            gate = part == "gate" and same_gate and "gate" not in phase.keep
            if not gate and (part not in ("tables", "towers", "encoders") or expert not in experts):
                continue
            by_item = part == "tables" and EXPERTS[expert].by_item
            found = np.shape(theirs.get(name, ()))
            if name not in theirs or found[by_item:] != values.shape[by_item:]:
                raise UserError(
                    f"config.start={self.path}: its {name} is {list(found)}, here {list(values.shape)}; give this run "
                    f"the settings of that one, or leave config.start out"
                )
            new = jnp.asarray(theirs[name], values.dtype)
            if by_item:
                flat[name] = jnp.where((rows > 0)[:, None], scale * new[rows], values)
            else:
                flat[name] = jnp.array(new, copy=True)
            carried.add(name)
        return unflatten_dict(flat, sep="/"), carried

    def rows(self, item_ids: Sequence[str]) -> Int[np.ndarray, " I"]:
        """Where each of items 1..N stands among the earlier ones; 0 for padding and for a new one."""
        place = {item: n for n, item in enumerate(self.artifact.item_ids, 1)}
        return np.array([0, *(place.get(item, 0) for item in item_ids)], np.int32)

    def told(self, method: Method, item_ids: Sequence[str]) -> str:
        """One line for a run of these items."""
        known = int((self.rows(item_ids) > 0).sum())
        fresh = [e for e in method.experts if EXPERTS[e].learns and e not in self.experts(method)]
        count = len(self.artifact.item_ids)
        return (
            f"start: {', '.join(self.experts(method))} of {self.path}; {known:,} of its {count:,} items are there, "
            f"{len(item_ids) - known:,} are new"
            + (f"; {', '.join(fresh)} begin{'s' if len(fresh) == 1 else ''} fresh" if fresh else "")
        )
