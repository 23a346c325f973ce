"""Who calls, and whether he may: the one place where that is decided.

There is no authenticator yet. Until there is one everybody who can reach the server may do everything, so only programs
of this machine may reach it, and pages of other sites, which a browser on this machine would let reach it, are refused.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final, Protocol
from urllib.parse import urlsplit

from asyncflow.errors import Forbidden, Malformed

CALLER: Final = "X-Asyncflow-Caller"
CALLER_CHARACTERS_MAX: Final = 256
"""As long as an e-mail address may be; it is kept with every message that lies, and in the history."""


class Headers(Protocol):
    """The headers of a request, by names in any case."""

    def get(self, key: str, /) -> str | None:
        """Give the value of one, None where it is not there."""
        ...


def admit(headers: Headers, *, insecure: bool = False) -> str | None:
    """Let a request in and give its caller's name, None where he gave none.

    Args:
        headers: Of the request.
        insecure: The server is reached under other names than those of loopback, and may be.

    Raises:
        Forbidden: it came under a foreign name of this host, or from a page of another site.
        Malformed: a caller's name that cannot be kept.
    """
    host = (headers.get("Host") or "").lower()
    if not insecure and not is_loopback(_name_of(host)):
        raise Forbidden(f"expected a request to localhost, found one to {host[:100]!r}: there is no authentication yet")
    if (headers.get("Sec-Fetch-Site") or "").lower() == "cross-site":
        raise Forbidden("expected no request from a page of another site, found Sec-Fetch-Site: cross-site")
    origin = headers.get("Origin")
    if origin is not None and not _is_own(origin, host):
        raise Forbidden(f"expected no request from a page of another site, found Origin: {origin[:100]!r}")
    caller = headers.get(CALLER)
    if caller is not None and not (0 < len(caller) <= CALLER_CHARACTERS_MAX and caller.isprintable()):
        raise Malformed(f"expected {CALLER} to be 1 to {CALLER_CHARACTERS_MAX} printable characters")
    return caller


def is_loopback(host: str) -> bool:
    """Whether a name or address means this very machine, wherever it is said."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _name_of(host: str) -> str:
    """The name in a `Host` header, without port and brackets."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_own(origin: str, host: str) -> bool:
    """Whether a page of *origin* was served by us; the scheme may be that of a proxy before us."""
    try:
        parts = urlsplit(origin.lower())
    except ValueError:
        return False
    default = {"http": ":80", "https": ":443"}.get(parts.scheme)
    if default is None or not parts.netloc:
        return False
    return parts.netloc.removesuffix(default) == host.removesuffix(default)
