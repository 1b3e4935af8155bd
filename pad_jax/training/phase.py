"""A phase: one training run of a method, as data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from pad_jax.batching.batch import Batch
from pad_jax.batching.device import DeviceData
from pad_jax.errors import UserError
from pad_jax.losses.mean import Mean
from pad_jax.models.experts import EXPERTS
from pad_jax.models.scorer import Params, Scorer
from pad_jax.registry import SECTIONS
from pad_jax.settings import Config, setting

#: Named parts of a loss: (weight, mean) each. The loss is the sum of weight * mean.
Losses = dict[str, tuple[float, Mean]]
LossFunction = Callable[[Scorer, Config, Params, Batch, DeviceData, PRNGKeyArray | None], Losses]


@dataclass(frozen=True)
class PretrainSettings:
    """The budget of a phase; an own phase registers a section of its name with these fields."""

    epochs: int = setting(400, "at most", "C", unit="epochs", least=1, below=10**6, best=30)
    learning_rate: float = setting(
        1e-4, "of AdamW", "V in recipe paper, against 3e-4", above=0, paper=1e-3, official=1e-5, best=1e-3
    )
    minutes: float = setting(0.0, "stop after this much training time; 0: no limit", unit="minutes", least=0)


@dataclass(frozen=True)
class AlignSettings(PretrainSettings):
    learning_rate: float = setting(
        1e-4, "of AdamW", "O in recipe paper, as phase 1", above=0, paper=1e-3, official=1e-5, best=1e-3
    )


@dataclass(frozen=True)
class FinetuneSettings(PretrainSettings):
    learning_rate: float = setting(
        1e-4, "of AdamW", "V in recipe paper, against 1e-3", above=0, paper=1e-4, official=1e-4, best=1e-3
    )


SECTIONS.register("pretrain", PretrainSettings)
SECTIONS.register("align", AlignSettings)
SECTIONS.register("finetune", FinetuneSettings)


@dataclass(frozen=True)
class Limits:
    """The learning rates of a phase, and the most epochs and minutes it is given; 0 minutes are no limit."""

    epochs: int
    learning_rate: float
    minutes: float
    gate_rate: float  # of the gate


@dataclass(frozen=True)
class Phase:
    """One training run: which experts it scores with, what it minimises, where its parameters come from, what moves.

    `loss` is a pure function of (scorer, config, params, batch, data, key) that returns named (weight, mean) pairs; the
    loop takes the steps. A path ("tables/aligned") names every leaf below it. What neither `start` nor `fill` names is
    fresh. Kept paths are neither differentiated nor known to the optimizer.
    """

    name: str  # also the section of the configuration with its budget
    experts: tuple[str, ...]
    loss: LossFunction
    start: Mapping[str, str] = field(default_factory=dict)  # path here -> path of the phase before, whose values it has
    scale: Mapping[str, float] = field(default_factory=dict)  # path here -> what these values are multiplied by
    fill: Mapping[str, "Fill"] = field(default_factory=dict)  # path of a leaf here -> what makes it from data
    text: bool = False  # `fill` reads the text, which none of its experts does
    keep: tuple[str, ...] = ()  # paths that are carried along without being trained
    rate: str = ""  # phase of the configuration whose learning rate it has; empty: its own
    gate: str = ""  # kind of gate; empty: config.gate.kind
    gate_rate: float | None = None  # times its learning rate for the gate; None: config.train.gate_rate
    steps: int = 1  # an epoch passes over its users as often as it takes to make so many
    held_out: bool = False  # it trains on the events of the validation split, each with what came before it
    by_loss: bool = False  # its best epoch is the one of least training loss: it trains no recommender
    weighed: bool = False  # the gradients of its loss's parts are measured as it begins
    critics: Callable[[Config, PRNGKeyArray], Params] | None = None  # fresh parameters that the loss alone has
    each_epoch: "EachEpoch | None" = None  # what the data of an epoch are, from those of the run and all parameters

    @property
    def reads_text(self) -> bool:
        """Whether its model does."""
        return any(EXPERTS[expert].reads_text for expert in self.experts)

    @property
    def moves(self) -> tuple[str, ...]:
        """The experts that it trains."""
        return tuple(e for e in self.experts if EXPERTS[e].learns and f"encoders/{e}" not in self.keep)

    def limits(self, config: Config) -> Limits:
        """Its learning rate and its budget. Raises UserError where the configuration has none for it."""
        for name in {self.name, self.rate or self.name}:
            if not hasattr(config, name):
                raise UserError(
                    f"the phase {self.name!r} has no section config.{name} with its budget: name the phase pretrain, "
                    f'align or finetune, or SECTIONS.register("{name}", PretrainSettings)'
                )
        own = getattr(config, self.name)
        rate = getattr(config, self.rate or self.name).learning_rate
        times = config.train.gate_rate if self.gate_rate is None else self.gate_rate
        return Limits(own.epochs, rate, own.minutes, rate * times)

    def scorer(self, config: Config) -> Scorer:
        """The scorer of its experts."""
        return Scorer(config, self.experts, self.gate or config.gate.kind)

    def fresh(self, config: Config, key: PRNGKeyArray, items: int, text_width: int) -> dict[str, Any]:
        """Fresh parameters of everything in it."""
        params = self.scorer(config).init(key, items, text_width)
        if self.critics is not None:
            params["critics"] = self.critics(config, jax.random.fold_in(key, 2**31))
        return params


#: (config, data, shape of the leaf) -> its first values.
Fill = Callable[[Config, DeviceData, tuple[int, ...]], Float[Array | np.ndarray, "..."]]
#: (scorer, config, all parameters, data of the run) -> data of the epoch, with arrays of the same shapes.
EachEpoch = Callable[[Scorer, Config, Params, DeviceData], DeviceData]


@dataclass(frozen=True)
class Method:
    """Phases in order; each starts from the best checkpoint of the one before."""

    name: str
    phases: tuple[Phase, ...]

    @property
    def experts(self) -> tuple[str, ...]:
        """Of all phases."""
        return tuple(dict.fromkeys(expert for phase in self.phases for expert in phase.experts))

    @property
    def reads_text(self) -> bool:
        """Whether its training does."""
        return any(phase.reads_text or phase.text for phase in self.phases)
