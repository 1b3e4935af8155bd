"""Raw files that several readers' tests write, and a server that has some."""

import http.server
import threading

import pytest

from tests.support.readers import EVENTS, ITEMS


@pytest.fixture
def shop(tmp_path):
    def write(events=EVENTS, items=ITEMS):
        (tmp_path / "events.csv").write_bytes(events if isinstance(events, bytes) else events.encode())
        (tmp_path / "items.csv").write_bytes(items if isinstance(items, bytes) else items.encode())
        return tmp_path

    return write


@pytest.fixture
def server(tmp_path):
    """A loopback server over a folder."""
    served = tmp_path / "served"
    served.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, directory=str(served), **kwargs)

        def log_message(self, *args):
            del args

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield served, f"http://127.0.0.1:{running.server_port}/"
        running.shutdown()
