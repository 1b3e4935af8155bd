"""`python -m pad_jax` and the command `pad-jax`: the same as `python main.py`."""

import os
import signal
import sys
import threading
from typing import Any

from pad_jax import limits


def command() -> int:
    """Runs the command line of this process; returns its exit code."""
    limits.open_streams()
    refused = limits.refusal()
    if refused:
        print(f"error: {refused}", file=sys.stderr)
        return 2
    # What fails in threads of libraries is raised where it is waited for; nothing else has to print it.
    sys.unraisablehook = lambda _: None
    threading.excepthook = lambda _: None
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stopped_early)
    from pad_jax.run import main  # which takes seconds, and starts jax

    signal.signal(signal.SIGINT, signal.default_int_handler)
    code = main(sys.argv)
    if code > 128:  # a signal: nothing waits for what is going on in threads, as if it had been killed
        os._exit(code)
    return code


def _stopped_early(number: int, _: Any) -> None:
    print("stopped before anything began", file=sys.stderr, flush=True)
    os._exit(128 + number)


if __name__ == "__main__":
    sys.exit(command())
