"""What a claim of the paper needs to be judged."""

import numpy as np

from pad_jax.studies.claims import AGREES, CHANCE, DISAGREES, UNTESTED, above
from tests.support.groups import Group


def test_a_claim_is_more_than_an_order_of_numbers():
    noise = np.random.default_rng(0).normal(size=400)
    groups = {"high": Group(noise + 1), "low": Group(noise), "same": Group(np.random.default_rng(1).normal(size=400))}
    assert above("", groups, ["high"], ["low"], "HR@10").verdict == AGREES
    assert above("", groups, ["low"], ["high"], "HR@10").verdict == DISAGREES
    assert above("", groups, ["low"], ["same"], "HR@10").verdict == CHANCE
    assert above("", groups, ["high"], ["low", "same"], "HR@10").verdict == AGREES
    assert above("", groups, ["high", "low"], ["same"], "HR@10").verdict == CHANCE
    assert above("", groups, ["low", "same"], ["high"], "HR@10").verdict == DISAGREES
    missing = above("", groups, ["high"], ["low", "other"], "HR@10")
    assert missing == ("", "not run: other", UNTESTED)
    assert "high minus low: +100.00 [+100.00, +100.00]" in above("", groups, ["high"], ["low"], "HR@10").found


def test_a_claim_is_not_judged_where_a_clock_decided():
    noise = np.random.default_rng(0).normal(size=400)
    whole, cut = ({"finetune": {"epochs": n, "stopped": by}} for n, by in ((50, "patience"), (27, "minutes")))
    groups = {"pad": Group(noise, phases=cut), "smem": Group(noise + 2, phases=whole), "plain": Group(noise + 1)}
    found = above("", groups, ["pad"], ["smem", "plain"], "nDCG@10")
    assert found == ("", "minutes ended a run of pad or of smem, and left them other epochs", UNTESTED)
    assert above("", groups, ["pad"], ["plain"], "nDCG@10").verdict == UNTESTED  # which has no such phase
    assert above("", groups, ["smem"], ["plain"], "nDCG@10").verdict == AGREES
