"""The service as a process: what is in flight when SIGTERM comes is answered, and the jobs that lead to it."""

import os
import signal
import socket
import subprocess
import sys
import time

import pytest
import requests

from pad_jax.run import main, run
from pad_jax.serve import main as command
from pad_jax.service import ServeSettings, app
from pad_jax.settings import with_fields
from tests.support.data import ROOT, sequences

QUIET = {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}


@pytest.mark.slow
def test_sigterm_answers_what_is_in_flight(folders, tmp_path):
    """A request whose body comes after the signal is answered, the port is closed by then, and the exit code is 0."""
    started = [sys.executable, "-m", "pad_jax.serve", *map(str, folders), "--port=0", "--batch=2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(started, cwd=tmp_path, env=os.environ | QUIET, **pipes) as process:
        line = next(line for line in process.stdout if "http" in line)
        assert line.startswith("first, second: http://127.0.0.1:")
        port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
        url = f"http://127.0.0.1:{port}"
        assert requests.get(url + "/health", timeout=60).json()["status"] == "ok"
        body = b'{"history": ["i1", "i2"], "model": "second"}'
        with socket.create_connection(("127.0.0.1", port)) as slow:
            slow.sendall(
                b"POST /recommend HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: %d\r\n\r\n" % len(body) + body[:5]
            )
            time.sleep(0.3)
            process.send_signal(signal.SIGTERM)
            until = time.monotonic() + 20
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=5).close()
                    assert time.monotonic() < until
                    time.sleep(0.05)
                except ConnectionRefusedError:
                    break
            slow.sendall(body[5:])
            slow.settimeout(60)
            answer = slow.recv(1 << 16)
        assert answer.startswith(b"HTTP/1.1 200 OK")
        told, wrong = process.communicate(timeout=60)
    assert process.returncode == 0, wrong
    assert told == "stopped; what was in flight is answered\n"
    assert wrong == ""


@pytest.mark.slow
def test_what_cannot_be_served_is_one_line(folders, tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for arguments, message in (
            ([str(folders[0]), f"--port={port}"], f"config.serve.port={port} cannot be listened on (Address already"),
            ([str(tmp_path / "none"), "--port=0"], f"{tmp_path}/none/model is missing"),
            ([str(folders[0]), "--batch=0"], "config.serve.batch must be at least 1"),
            ([str(folders[0]), "--host=nowhere.invalid"], "config.serve.host=nowhere.invalid"),
        ):
            assert command(arguments) == 2
            (line,) = capsys.readouterr().err.splitlines()
            assert line.startswith("error: ")
            assert message in line


@pytest.mark.slow
def test_the_job_serves_a_run_with_its_users(trained, dataset, monkeypatch, capsys):
    """The model of the workdir, users of the data, and which of their last events training has not seen."""
    config, workdir = trained
    found = []

    def look(sources, settings, folder):
        found.append((sources, settings, folder))

    monkeypatch.setattr(app, "run_until_stopped", look)
    run(with_fields(config, {"job": "serve", "serve.port": 4321}), workdir)
    (((source,), settings, folder),) = found
    assert (source.name, settings.port, folder) == (workdir.name, 4321, workdir)
    served = source.served()
    assert served.history("u3") == sequences(dataset)["u3"]
    assert len(served._users) == dataset.users
    assert served.unseen == set(dataset.user_ids)  # every user has a test target here
    assert served.about["test"]["nDCG@10"] == served.model.results["test"]["nDCG@10"]
    run(with_fields(config, {"job": "serve", "serve.users": False, "serve.beside": (str(workdir),)}), workdir)
    assert [one.name for one in found[1][0]] == [workdir.name, f"{workdir.name}-2"]
    assert found[1][0][0].served().history("u3") is None


@pytest.mark.slow
def test_a_training_ends_with_the_line_that_starts_the_page(world, tmp_path, capsys):
    fields = [f"--config.{name}={value}" for name, value in world.items()]
    small = ["--config.model.width=8", "--config.sasrec.blocks=1", "--config.data.length=8", "--config.sasrec.heads=1"]
    code = main(["main.py", *fields, *small, "--config.method=sasrec", f"--workdir={tmp_path / 'w'}"])
    told = capsys.readouterr()
    assert code == 0, told.err
    last = told.out.splitlines()[-1]
    assert last.startswith("explore its lists: python main.py --config=demo:serve ")
    assert last.endswith(f"--workdir={tmp_path / 'w'}")


def test_settings_of_the_command_are_those_of_the_job(capsys):
    with pytest.raises(SystemExit):
        command(["--help"])
    told = capsys.readouterr().out
    assert all(f"--{field}" in told for field in ServeSettings.__dataclass_fields__)
