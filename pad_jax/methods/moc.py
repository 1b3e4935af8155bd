"""Codes in place of IDs, after Mixture-of-Codes (Zhang et al. 2024, arXiv 2410.09560)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import finetuning, pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def moc(config: Config) -> Method:
    """A recommender on codes of item texts; with `codes.company=smem` it then takes the ID expert's place in SMEM.

    Differs: the paper has codes as features of click models. In that company the aligned expert's ID rows are fresh,
    where SMEM's start from the ID expert's: a code's row is no item's.
    """
    first = Phase("pretrain", ("codes",), pretrain_loss)
    if config.codes.company == "alone":
        return Method("moc", (first,))
    start = {path: path for path in ("tables/codes", "towers/codes", "encoders/codes")}
    kept = tuple(start) if config.experts.freeze_carried else ()
    if config.experts.copy_encoder:
        start["encoders/aligned"] = "encoders/codes"
    second = Phase("finetune", ("codes", "aligned", "text"), finetuning(("aligned", "text")), start=start, keep=kept)
    return Method("moc", (first, second))


METHODS.register("moc", moc)
