"""How a program ends: an exit code, and one line where something is wrong.

0 it did all it was asked, 2 a user's mistake or what the system refuses, 70 an error that nobody expected, 130 and 143
stopped by SIGINT and SIGTERM.
"""

import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from absl import logging

from pad_jax.console import complain, flush
from pad_jax.errors import UserError

_PATIENCE = 7.0  # seconds from SIGTERM to the end
_GOES_ON = "the same command continues from the last epoch"


class _TerminatedError(BaseException):
    """SIGTERM."""


def run(work: Callable[[], None], folder: Callable[[], Path | None] = lambda: None) -> int:
    """The exit code after `work`; the traceback of an error that nobody expected goes to a file in `folder()`."""
    logging.set_verbosity(logging.FATAL)  # Orbax logs tracebacks of errors that it raises as well
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a terminal that knows ASCII alone
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _terminate)
    try:
        work()
        flush()
    except UserError as error:
        return _ends(2, f"error: {error}")
    except KeyboardInterrupt:
        return _ends(130, f"interrupted: {_GOES_ON}")
    except _TerminatedError:
        return _ends(143, f"terminated: {_GOES_ON}")
    except OSError as error:
        what = f"{error.filename or 'a file'}: {error.strerror or error}"
        return _ends(2, f"error: {what}; its traceback is in {kept(folder())}")
    except Exception as error:
        if isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error):  # of the host, or of XLA
            return _ends(2, "error: out of memory: lower config.train.batch, config.eval.batch or config.model.width")
        name = type(error).__name__
        return _ends(70, f"error: {name}, which nobody expected; its traceback is in {kept(folder())}")
    return 0


def _ends(code: int, text: str) -> int:
    flush()
    complain(text)
    return code


def _terminate(*_: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    late = threading.Timer(_PATIENCE, _leave)  # where a program of the device takes its time
    late.daemon = True
    late.start()
    raise _TerminatedError


def _leave() -> None:
    complain(f"terminated: {_GOES_ON}")
    os._exit(143)


def kept(folder: Path | None) -> Path:
    """A file with the traceback of the error that is being handled: in `folder`, or else in the temporary one."""
    name = f"error-{time.strftime('%Y%m%d-%H%M%S')}.txt"
    for place in (folder or Path("runs"), Path(tempfile.gettempdir())):
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / name).write_text(traceback.format_exc())
            return place / name
        except OSError:
            continue
    return Path("nowhere: no folder can be written")
