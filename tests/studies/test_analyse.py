"""Claims of the analysis."""

import numpy as np

from pad_jax.studies import analyse
from pad_jax.studies.claims import AGREES, DISAGREES, UNTESTED


def test_claims_of_kendalls_tau():
    """Each is judged by what it says: the coldest buckets most, every bucket."""
    ten = np.full(10, 0.8)

    def panels(loose, single=0.3, last=0.6, text=0.1):
        one = [*[single] * 9, 0.77]
        return {
            "a": {"anchored": ten.tolist(), "not anchored": loose},
            "b": {"without alignment": ten.tolist(), "with alignment": one},
            "c": {"one, aligned": one, "three, ID expert": [last] * 9 + [0.9], "three, aligned expert": [0.0] * 10},
            "d": {name: [text] * 10 for name in ("one, aligned", "three, aligned expert", "three, text expert")},
        }

    verdicts = [c.verdict for c in analyse.kendall_claims(panels([0.7] * 6 + [0.2] * 4))]
    assert verdicts == [AGREES] * 5
    assert analyse.kendall_claims(panels([0.2] * 6 + [0.7] * 4))[0].verdict == DISAGREES
    verdicts = [c.verdict for c in analyse.kendall_claims(panels([0.7] * 10, single=0.9, text=0.95))]
    assert verdicts[1:] == [DISAGREES] * 4
    assert analyse.kendall_claims(panels([np.nan] * 10))[0].verdict == UNTESTED
    assert {c.verdict for c in analyse.kendall_claims(panels([0.7] * 10), frozen=True)} == {UNTESTED}
