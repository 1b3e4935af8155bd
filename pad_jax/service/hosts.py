"""Which names a service may be asked by: a page elsewhere can give its own name this machine's address (DNS rebinding),
and would then read what a browser here may read."""

import ipaddress
import re
from collections.abc import Sequence

from pad_jax.errors import UserError

_HOST = re.compile(r"(\[[0-9a-f:.]+\]|[^\s:/@\[\]]+)(?::\d*)?", re.I)


class Hosts:
    """The hosts that a request may name; ports make no difference.

    They are the address that is listened on, `localhost`, the loopback addresses, and `names`; where not this machine
    alone can connect, every IP address, which no name server can point elsewhere. "*" in `names` is any host.
    """

    def __init__(self, bound: str, names: Sequence[str] = ()):
        """Raises UserError for a name that is none."""
        for name in names:
            if name != "*" and (host_of(name) is None or host_of(name) != name.lower()):
                raise UserError(
                    f"config.serve.hosts: {name!r} must be a name as `shop.example`, without http:// and port, or `*`"
                )
        address = _address(bound)
        self._any = "*" in names
        self._names = {"localhost", bound.lower(), *(name.lower() for name in names)}
        self._abroad = bound != "localhost" and (address is None or not address.is_loopback)

    def allow(self, header: str) -> bool:
        """Whether a `Host` header names one of them."""
        host = host_of(header)
        if self._any or host is None:
            return self._any
        address = _address(host)
        return host in self._names or (address is not None and (self._abroad or address.is_loopback))


def host_of(header: str) -> str | None:
    """The host of a `Host` header in lower case, without port; None for what is no such header."""
    found = _HOST.fullmatch(header)
    return found and found[1].lower()


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
    except ValueError:
        return None
