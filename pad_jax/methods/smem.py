"""SMEM: shared and modality-specific embeddings, PAD without its alignment (paper, Table 2 and Fig. 4, after STEM)."""

from pad_jax.methods.base import Method, Phase
from pad_jax.methods.pad import finetune_loss, pretrain_loss
from pad_jax.methods.registry import METHODS
from pad_jax.settings import Config


def smem(config: Config) -> Method:
    """PAD without its alignment: a second table of fresh ID rows is joined with the text, by recommendation alone.

    Each expert has the updates that PAD's same expert has: the aligned one a phase of its own, then all three phase 3.
    The paper does not say whether the frequency gate stays; it does here. `method=pad` with `mmd.weight=0` leaves the
    MMD out and nothing else: its aligned expert starts from the pre-trained ID rows.
    """
    del config
    kept = ("tables/id", "encoders/id")
    carried = {path: path for path in (*kept, "tables/aligned", "encoders/aligned", "towers/aligned")}
    return Method(
        "smem",
        (
            Phase("pretrain", ("id",), pretrain_loss),
            Phase("align", ("aligned",), pretrain_loss, start={path: path for path in kept}, keep=kept),
            Phase("finetune", ("id", "aligned", "text"), finetune_loss, start=carried),
        ),
    )


def two_phases(config: Config) -> Method:
    """SMEM under rules 1 and 2: no phase of the aligned expert alone."""
    first, _, last = smem(config).phases
    return Method("smem", (first, last))


#: 1: epochs of align and finetune.
METHODS.register("smem", smem, rules=3, older={1: two_phases, 2: two_phases})
