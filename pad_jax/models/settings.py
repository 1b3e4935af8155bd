"""Settings that all backbones and item towers share."""

from dataclasses import dataclass

from pad_jax.registry import SECTIONS
from pad_jax.settings import Config, setting


@dataclass(frozen=True)
class ModelSettings:
    width: int = setting(128, "D, of item and user vectors", "P", least=1, below=65_537)
    dropout: float = setting(0.1, "share of values that training zeroes", "P", least=0, below=1, best=0.3)
    text_tower: str = setting(
        "mlp", "network over text vectors", "C", choices=("mlp", "residual", "linear2"), best="residual"
    )
    text_layers: int = setting(4, "hidden layers of the text MLP after the first", "C", least=0, below=1001)
    fusion: str = setting(
        "concat",
        "CAT of Eq. (6): of IDs and text, see `AlignedTower`",
        "P",
        choices=("concat", "linear", "add"),
        best="linear",
    )
    user: str = setting(
        "state", "user vector, see UserEncoder", "P", choices=("state", "residual", "profile"), best="residual"
    )
    logit_scale: str = setting(
        "none", "what multiplies every logit, see UserEncoder", "P", choices=("none", "sqrt", "learned"), best="learned"
    )
    log_scale: float = setting(0.0, "where a learned scale starts", best=2.5)
    dtype: str = setting("float32", "of matrix products, see models/scorer.py", choices=("float32", "bfloat16"))
    id_std: float = setting(0.0, "standard deviation of fresh ID rows; 0: Xavier normal [C]", least=0, best=0.02)


SECTIONS.register("model", ModelSettings)


def products_in(config: Config) -> str | None:
    """The dtype of matrix products; None is that of the parameters."""
    return None if config.model.dtype == "float32" else config.model.dtype
