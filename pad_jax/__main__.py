"""`python -m pad_jax` and the command `pad-jax`: the same as `python main.py`."""

import sys

from pad_jax.run import main


def command() -> int:
    """Runs the command line of this process; returns its exit code."""
    return main(sys.argv)


if __name__ == "__main__":
    sys.exit(command())
