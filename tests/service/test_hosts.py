"""The hosts that a request may name: a page that rebinds its name to this machine is answered nothing."""

import pytest

from pad_jax.errors import UserError
from pad_jax.service.hosts import Hosts

pytestmark = pytest.mark.xdist_group("service")
HERE = ["localhost", "localhost:8000", "LOCALHOST", "127.0.0.1", "127.0.0.1:80", "127.1.2.3", "[::1]", "[::1]:8000"]
STRANGE = ["evil.example", "evil.example:8000", "localhost.evil.example", "127.0.0.1.evil.example", "evil@localhost"]
BROKEN = ["", " ", "localhost:x", "[::1", "::1", "localhost/", "a b", "localhost:80:80", "[localhost]"]


@pytest.mark.parametrize(
    ("bound", "others"),
    [
        ("127.0.0.1", False),
        ("localhost", False),
        ("::1", False),
        ("0.0.0.0", True),
        ("::", True),
        ("192.168.0.7", True),
        ("shop.example", True),
    ],
)
def test_who_is_asked(bound, others):
    """Addresses of other machines only where other machines can connect; other names never."""
    hosts = Hosts(bound)
    assert all(map(hosts.allow, HERE))
    assert not any(map(hosts.allow, [*STRANGE, *BROKEN]))
    for address in ("192.168.0.7", "192.168.0.7:8000", "[2001:db8::1]:8000"):
        assert hosts.allow(address) is others
    assert hosts.allow("shop.example") is (bound == "shop.example")


def test_names_that_are_given():
    hosts = Hosts("127.0.0.1", ("Shop.example", "[2001:db8::1]", "model"))
    assert all(map(hosts.allow, [*HERE, "shop.EXAMPLE:443", "[2001:db8::1]", "model:8000"]))
    assert not any(map(hosts.allow, [*STRANGE, *BROKEN, "a.shop.example", "[2001:db8::2]"]))
    assert all(map(Hosts("127.0.0.1", ("*",)).allow, [*HERE, *STRANGE, *BROKEN]))
    for name in ("http://shop.example", "shop.example:80", "", "*.example:1"):
        with pytest.raises(UserError, match="without http:// and port"):
            Hosts("127.0.0.1", (name,))


def test_every_path_refuses_in_one_line(serving):
    paths = ["/", "/models", "/users?random=1", "/metrics", "/openapi.json", "/nothing"]
    with serving() as client:
        for path in paths:
            answer = client.get(path, headers={"host": "evil.example:8000"})
            assert answer.status_code == 421
            assert answer.json() == {
                "error": "host 'evil.example:8000' is not served here: name it in serve.hosts",
            }
            assert answer.headers["cache-control"] == "no-store"
        answer = client.post("/recommend", json={"history": ["i1"]}, headers={"host": "evil.example"})
        assert answer.status_code == 421
        two = [("host", "localhost"), ("host", "evil.example")]
        assert client.get("/models", headers=two).status_code == 421
        assert client.get("/models", headers={"host": "localhost:1234"}).status_code == 200
        assert 'pad_jax_requests_total{route="/models",status="421"} 2.0' in client.get("/metrics").text
    with serving(hosts=("evil.example",)) as client:
        assert client.get("/models", headers={"host": "evil.example:8000"}).status_code == 200
