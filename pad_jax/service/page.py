"""The page to explore lists: whole, with its policy, and the parts of it that other pages are made of."""

import base64
import hashlib
import re
from importlib.resources import files


def page() -> tuple[bytes, str]:
    """The page, and a policy that lets nothing run but its own script and style."""
    content = _source()
    policy = {
        "default-src": "'none'",
        "script-src": hashed(inside(content, "script")),
        "style-src": hashed(inside(content, "style")),
        "connect-src": "'self'",
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return content.encode(), "; ".join(f"{name} {value}" for name, value in policy.items())


def style() -> str:
    """The page's style sheet."""
    return inside(_source(), "style")


def functions(*names: str) -> str:
    """Functions of the page's script, as they stand in it."""
    script = inside(_source(), "script")
    found = [re.findall(rf"^function {name}\(.*?^}}$", script, re.S | re.M) for name in names]
    return "\n".join(source for (source,) in found)


def inside(content: str, tag: str) -> str:
    """What is in the one element <tag> without attributes."""
    (found,) = re.findall(rf"<{tag}>(.*?)</{tag}>", content, re.S)
    return found


def hashed(source: str) -> str:
    """What a Content-Security-Policy calls a script or a style."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode() + "'"


def _source() -> str:
    return (files("pad_jax.service") / "page.html").read_text(encoding="utf-8")
