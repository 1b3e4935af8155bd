"""A sample of `python -m tests.faults`, and what the system can do to the program, a case each."""

import errno
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pad_jax.run import main
from tests.faults.shop import quick
from tests.support.data import ROOT

START = [sys.executable, str(ROOT / "main.py"), "--config=table:all"]
SMALL = ["--config.dataset=shop", "--config.table.events=events.csv", "--config.table.catalogue=items.csv"]
SMALL += ["--config.method=sasrec", "--config.model.width=8", "--config.pretrain.epochs=1", "--config.sasrec.blocks=1"]


@pytest.mark.slow
def test_a_sample_of_faults(tmp_path):
    """Kinds of tests/faults, in processes of their own."""
    told = subprocess.run(
        [sys.executable, "-m", "tests.faults", "--cases=14", "--seed=312", f"--output={tmp_path / 'faults.jsonl'}"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert told.returncode == 0, told.stdout + told.stderr[-3000:]


@pytest.fixture
def shop(tmp_path):
    rows = [f"u{u},i{(u + n) % 7},{100 * n + u}\n" for u in range(20) for n in range(6)]
    (tmp_path / "events.csv").write_text("user,item,time\n" + "".join(rows))
    (tmp_path / "items.csv").write_text("item,title\n" + "".join(f"i{n},Thing {n}\n" for n in range(9)))
    return tmp_path


def started(shop, *arguments, job="all", before=None, environment=None, **options):
    return subprocess.run(
        [*START[:2], f"--config=table:{job}", *SMALL, *arguments],
        cwd=shop,
        env=os.environ | quick() | (environment or {}),
        preexec_fn=before,
        capture_output=options.pop("capture_output", True),
        text=True,
        errors="surrogateescape",
        timeout=120,
        **options,
    )


def refused(told) -> str:
    """The one line of exit code 2."""
    assert told.returncode == 2, told.stdout + told.stderr
    (line,) = told.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def limit(kind: int, value: int):
    return lambda: resource.setrlimit(kind, (value, value))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("before", "message"),
    [
        (limit(resource.RLIMIT_NOFILE, 16), "may open 16 files"),
        (limit(resource.RLIMIT_AS, 1 << 30), "1.0 GiB of address space"),
        (limit(resource.RLIMIT_DATA, 3 << 30), "3.0 GiB of address space (ulimit -d)"),
    ],
)
def test_limits_that_are_too_low_to_start_with(shop, before, message):
    assert message in refused(started(shop, before=before))


@pytest.mark.slow
def test_limits_that_are_enough(shop):
    from pad_jax import limits

    def before():
        resource.setrlimit(resource.RLIMIT_NOFILE, (16, limits.FILES))
        resource.setrlimit(resource.RLIMIT_AS, (limits.MEMORY, limits.MEMORY))

    told = started(shop, before=before)
    assert told.returncode == 0, told.stdout + told.stderr


@pytest.mark.parametrize(
    ("workdir", "message"),
    [
        (os.fsdecode(b"caf\xe9"), "is not UTF-8"),
        ("a\0b", "holds a NUL"),
        ("x" * 256, "is too long"),
        ("/".join(["y" * 100] * 50), "is too long"),
        ("/proc/w", "cannot be written"),
        ("events.csv", "cannot be written"),
        ("loop", "cannot be written"),
    ],
)
def test_workdirs_that_cannot_be(shop, monkeypatch, capsys, workdir, message):
    (shop / "loop").symlink_to("loop")
    monkeypatch.chdir(shop)
    assert main([*START[1:], *SMALL, f"--workdir={workdir}"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("flag", ["--config.table.events", "--config.text.table", "--config"])
def test_pipes_are_no_files(shop, monkeypatch, capsys, flag):
    os.mkfifo(shop / "pipe.npy")
    monkeypatch.chdir(shop)
    assert main([*START[1:], *SMALL, f"{flag}=pipe.npy", "--config.method=smem"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "pipe.npy is not a file" in line


@pytest.mark.slow
def test_nobody_listens_and_training_goes_on(shop):
    """A full device, a pipe that is closed, and a terminal that knows ASCII alone."""
    with open("/dev/full", "w") as full:
        assert started(shop, capture_output=False, stdout=full).returncode == 0
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "w") as broken:
        assert (
            started(shop, "--config.dataset=other", job="prepare", capture_output=False, stdout=broken).returncode == 0
        )
    assert list((shop / "runs" / "other").glob("prepared-*"))
    terminal, screen = os.openpty()
    run = [*START, *SMALL, "--config.seed=2"]
    with subprocess.Popen(run, cwd=shop, env=os.environ | quick(), stdout=screen) as process:
        os.close(screen)
        seen = b""
        while b"baselines" not in seen:
            seen += os.read(terminal, 1000)
        os.close(terminal)
    assert process.returncode == 0
    assert len(list((shop / "runs" / "shop").glob("*/results.json"))) == 2
    text = "item,title\n" + "".join(f"i{n},Café {n}\n" for n in range(9))
    (shop / "items.csv").write_text(text)
    ascii_alone = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
    told = started(shop, "--config.dataset=café", job="prepare", environment=ascii_alone)
    assert told.returncode == 0, told.stderr
    assert "caf?" in told.stdout


@pytest.mark.slow
def test_a_user_without_a_home(shop):
    """As in a container whose user no password file knows, with a cache that cannot be written."""
    start = (
        "import pwd, runpy, sys\n"
        "def getpwuid(uid): raise KeyError(uid)\n"
        "pwd.getpwuid = getpwuid\n"
        f"sys.argv[0] = {START[1]!r}\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "runpy.run_path(sys.argv[0], run_name='__main__')\n"
    )
    away = ("HOME", "XDG_CACHE_HOME", "USER", "LOGNAME", "JAX_COMPILATION_CACHE_DIR")
    environment = {n: v for n, v in (os.environ | quick()).items() if n not in away}
    for own in ({}, {"XDG_CACHE_HOME": "/proc/nothing"}):
        told = subprocess.run(
            [sys.executable, "-c", start, "--config=table:prepare", *SMALL],
            cwd=shop,
            env=environment | own,
            capture_output=True,
            text=True,
        )
        assert told.returncode == 0, told.stdout + told.stderr
        assert told.stdout.count("compiled programs are not kept for the next run") == 1


CONFIG = """from pad_jax.config import config_dict


def get_config(job="all"):
    {}
    return config_dict("shop", job)
"""


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("undefined", "shop.py, line 5: NameError name 'undefined' is not defined"),
        ("1 / 0", "shop.py, line 5: ZeroDivisionError division by zero"),
        ("raise SystemExit(3)", "shop.py, line 5: SystemExit 3"),
        ("raise RuntimeError('two\\nlines')", "shop.py, line 5: RuntimeError two lines"),
        ("get_config()", "line 5: RecursionError"),
        ("return 3", "shop.py: get_config(job) must return what config_dict made, not int"),
        ("config_dict('a', nonsense=1)", "config_dict has no choice 'nonsense'"),
    ],
)
def test_config_files_are_programs_with_errors(tmp_path, monkeypatch, line, message):
    from pad_jax.cli import parse
    from pad_jax.errors import UserError

    (tmp_path / "shop.py").write_text(CONFIG.format(line))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError) as error:
        parse(["main.py", "--config=shop.py:all"])
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_lists_of_a_run_that_cannot_be_written(shop, monkeypatch, capsys):
    """A finished run on a read-only file system, and lists elsewhere."""
    import filelock

    monkeypatch.chdir(shop)
    job = [*START[1:], *SMALL]
    assert main(job) == 0

    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    job[1] = "--config=table:recommend"
    assert main([*job, "--config.recommend.output=lists.parquet", "--config.recommend.k=3"]) == 0, (
        capsys.readouterr().err
    )
    assert (shop / "lists.parquet").exists()
    job[1] = "--config=table:evaluate"
    capsys.readouterr()
    assert main(job) == 2
    assert "cannot be written (Read-only file system); use another --workdir" in capsys.readouterr().err


@pytest.mark.slow
def test_streams_that_are_closed(shop):
    run = " ".join([*START[:2], "--config=table:prepare", *SMALL])
    told = subprocess.run(f"{run} <&- >&- 2>&-", shell=True, cwd=shop, env=os.environ | quick())
    assert told.returncode == 0
    assert list((shop / "runs" / "shop").glob("prepared-*/manifest.json"))


@pytest.mark.slow
def test_sigterm_says_how_to_continue(shop):
    run = [*START, *SMALL, "--config.pretrain.epochs=100000", "--config.train.patience=100000"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(run, cwd=shop, env=os.environ | quick(), **pipes) as process:
        for line in process.stdout:
            if "epoch 2:" in line:
                break
        sent = time.monotonic()
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 143
    assert time.monotonic() - sent < 10
    assert said == "terminated: the same command continues from the last epoch\n"


def test_an_error_that_nobody_expected(tmp_path, monkeypatch, capsys):
    from pad_jax import run as program

    def broken(*_):
        raise KeyError("of ours\x1b[31m")

    monkeypatch.setattr(program, "run", broken)
    monkeypatch.chdir(tmp_path)
    assert program.main(["main.py", "--workdir=w"]) == 70
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: KeyError, which nobody expected; its traceback is in w/error-")
    assert "of ours" in Path(line.rpartition(" ")[2]).read_text()
