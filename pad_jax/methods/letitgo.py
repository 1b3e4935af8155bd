"""Let It Go: frozen text vectors and a small trained correction of each item (Pembek et al., RecSys 2025)."""

from dataclasses import dataclass

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from pad_jax.errors import UserError
from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.models.experts import EXPERTS, CorrectedExpert
from pad_jax.models.scorer import Params
from pad_jax.models.towers import ItemVectors, unit
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class LetItGoSettings:
    bound: float = setting(
        0.5, "longest correction of an item's text vector, which has length 1", "the Let It Go paper", least=0
    )


class DeltaExpert(CorrectedExpert):
    """T[i] / |T[i]| + delta[i] with |delta[i]| <= `letitgo.bound`: no network stands between the text and the score."""

    key, columns = 7, 1

    def check_text(self, config: Config, width: int) -> None:
        if width != config.model.width:
            raise UserError(
                f"corrections are added to text of width config.model.width={config.model.width}, not {width}: set "
                f"--config.text.transform=principal, or whiten with --config.text.components={config.model.width}"
            )

    def bound(self, config: Config) -> float:
        """Of the length of a correction."""
        return config.letitgo.bound

    def bounded(self, config: Config, rows: Float[Array, "J D"]) -> Float[Array, "J D"]:
        """Rows that are too long, scaled back to the bound."""
        bound = self.bound(config)
        return rows * (bound / jnp.maximum(jnp.linalg.norm(rows, axis=1, keepdims=True), max(bound, 1e-12)))

    def items(
        self,
        config: Config,
        tower: Params,
        text: Float[Array, "R D"] | None,
        rows: Float[Array, "R D"],
        ids: Int[Array, " R"],
        product: Float[Array, "R D"] | None = None,
        rngs: dict[str, PRNGKeyArray] | None = None,
    ) -> ItemVectors:
        assert text is not None
        return ItemVectors(unit(text) + rows)


def letitgo(config: Config) -> Method:
    """One phase from delta = 0 on. After every update each delta is projected onto the ball of radius `letitgo.bound`;
    with 0 the text stays as it is. Weight decay draws deltas to zero, as it does with any table.

    Differs: the loss is `config.loss`, the optimizer AdamW and not Adam; an item that training never meets keeps
    delta 0, also when it is drawn as a negative.
    """
    del config
    return Method("letitgo", (Phase("pretrain", ("delta",), pretrain_loss),))


EXPERTS.register("delta", DeltaExpert())
METHODS.register("letitgo", letitgo, settings=LetItGoSettings)
