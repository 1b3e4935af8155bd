"""What the system allows a process, looked at before anything large is imported: libraries that run into such a limit
while they start end the process without a word."""

import os
import resource
import sys

MEMORY, FILES = 4 << 30, 256  # address space in bytes, open files


def refusal() -> str | None:
    """One line on a limit that is too low to start with, or None. Open files may become as many as are allowed."""
    for kind, flag in ((resource.RLIMIT_AS, "-v"), (resource.RLIMIT_DATA, "-d")):
        memory, _ = resource.getrlimit(kind)
        if memory != resource.RLIM_INFINITY and memory < MEMORY:
            return (
                f"this process may use {memory / 2**30:.1f} GiB of address space (ulimit {flag}) and needs "
                f"{MEMORY >> 30} GiB to start: raise the limit"
            )
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < FILES:
        if hard != resource.RLIM_INFINITY and hard < FILES:
            return f"this process may open {hard} files (ulimit -n) and needs {FILES}: raise the limit"
        resource.setrlimit(resource.RLIMIT_NOFILE, (FILES if hard == resource.RLIM_INFINITY else hard, hard))
    return None


def open_streams() -> None:
    """Opens those of the three standard streams that are closed, lest files of a run take their numbers."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(os.dup(number), "r" if number == 0 else "w"))
