"""Codes in place of IDs, after Mixture-of-Codes (Zhang et al. 2024, arXiv 2410.09560)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import finetune_loss, pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def moc(config: Config) -> Method:
    """A recommender on codes of item texts; with `codes.company=smem` it then takes the ID expert's place in the last
    phase of SMEM, whose other experts begin there.

    Differs: the paper has codes as features of click models.
    """
    first = Phase("pretrain", ("codes",), pretrain_loss)
    if config.codes.company == "alone":
        return Method("moc", (first,))
    start = {path: path for path in ("tables/codes", "towers/codes", "encoders/codes")}
    second = Phase("finetune", ("codes", "aligned", "text"), finetune_loss, start=start)
    return Method("moc", (first, second))


METHODS.register("moc", moc, rules=2, older={1: moc})  # 1: the company was trained as `staged` is
