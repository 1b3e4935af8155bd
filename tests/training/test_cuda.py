"""Every step lowers for CUDA, on a machine without one."""

import functools

import jax
import jax.export
import pytest

from pad_jax.training.step import train_step
from tests.support.data import small_config
from tests.support.steps import Setup

CONFIGS = {
    "ce": {"recipe": "best"},
    "bce": {"recipe": "paper"},
    "sampled": {"recipe": "paper", "loss": "sampled_softmax", "optimizer__tables": "lazy"},
}


OTHERS = ("llminit", "letitgo", "alphafuse", "whitenrec", "llmemb", "llmesr", "moc", "staged", "make", "smem", "blend")


def lower(setup, part):
    optimizer, state = setup.state(part, setup.previous(part))
    batch, _ = setup.batch()
    step = functools.partial(train_step, part.loss, optimizer, setup.scorer(part), setup.config)
    exported = jax.export.export(jax.jit(step), platforms=["cuda"])(state, batch, setup.data, jax.random.key(0))
    assert exported.platforms == ("cuda",)


@pytest.mark.slow
@pytest.mark.parametrize("phase", ["pretrain", "align", "finetune"])
@pytest.mark.parametrize("loss", CONFIGS)
def test_a_step_lowers_for_cuda(dataset, text, phase, loss):
    setup = Setup(small_config(**CONFIGS[loss]), dataset, text)
    lower(setup, setup.phase(phase))


@pytest.mark.slow
@pytest.mark.parametrize("method", OTHERS)
def test_a_step_of_another_system_lowers_for_cuda(dataset, text, method):
    setup = Setup(small_config(recipe="best", method=method, codes__steps=2, codes__size=4), dataset, text)
    lower(setup, setup.method.phases[-1])
