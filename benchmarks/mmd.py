"""MK-MMD, value and gradient: ours beside the dense form with one exponential per scale, and its memory at large n.

The peer takes one Gram matrix of both samples, [2n, 2n], and five exponentials. 672 rows are one group of 16 users with
its padding, 10,752 the padded rows of 256 users.
"""

import statistics

import jax
import jax.numpy as jnp
import numpy as np
import torch

from benchmarks.harness import Report, arguments, in_turn, ratio, run
from benchmarks.peer import mmd
from pad_jax.losses.mmd import mk_mmd

SCALES = (-3, -2, -1, 0, 1)


def main() -> None:
    parser = arguments(__doc__, rounds=15)
    parser.add_argument("--rows", type=int, nargs="*", default=[672, 2688, 10752])
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--dense", type=int, default=2688, help="most rows of the dense peer (default %(default)s)")
    options = parser.parse_args()
    columns = ("rows", "ours_ms", "peer_ms", "ratio", "ratio_min", "ratio_max", "ours_mib")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with Report("mmd", columns) as report:
        for rows in options.rows:
            random = np.random.default_rng(0)
            samples = [random.standard_normal((rows, options.width), np.float32) + shift for shift in (0, 1)]
            x, y = (jnp.asarray(s) for s in samples)
            calls = max(1, (4000 // rows) ** 2 // 4)  # about 0.1 s a turn
            step = jax.jit(jax.value_and_grad(mk_mmd, argnums=(0, 1))).lower(x, y).compile()

            def ours(step=step, x=x, y=y, calls=calls):
                return jax.block_until_ready([step(x, y) for _ in range(calls)])[0]

            leaves = [torch.tensor(s, device=device, requires_grad=True) for s in samples]

            def peer(leaves=leaves, calls=calls):
                for _ in range(calls):
                    value = mmd(leaves[0][None], leaves[1][None], None, SCALES).sum()
                    gradients = torch.autograd.grad(value, leaves)
                if device.type == "cuda":
                    torch.cuda.synchronize()
                return value, gradients

            line = {"rows": rows, "ours_mib": step.memory_analysis().temp_size_in_bytes / 2**20}
            contenders = {"ours": ours}
            if rows <= options.dense:
                contenders["peer"] = peer
                line |= differences(ours(), peer())
            seconds = in_turn(contenders, options.rounds if rows <= options.dense else 3)
            line |= {f"{name}_ms": 1e3 * statistics.median(values) / calls for name, values in seconds.items()}
            if "peer" in seconds:
                line |= ratio(seconds["peer"], seconds["ours"])
            report.add(**line)


def differences(ours, peer) -> dict[str, float]:
    """Of value and gradient, relative; raises AssertionError above 1e-5 and 1e-4."""
    (value, gradient), (other, others) = ours, peer
    flat = np.concatenate([np.ravel(g) for g in gradient])
    flat_other = np.concatenate([g.cpu().numpy().ravel() for g in others])
    other = float(other.detach())
    found = {
        "value_difference": abs(float(value) - other) / abs(other),
        "gradient_difference": float(np.linalg.norm(flat - flat_other) / np.linalg.norm(flat_other)),
    }
    if found["value_difference"] > 1e-5 or found["gradient_difference"] > 1e-4:
        raise AssertionError(f"ours and the peer differ: {found}")
    return found


if __name__ == "__main__":
    run(main)
