"""Whether a delivery to `/tasks/…` comes from the scheduler: an OIDC token, or a signature with a shared key.

A delivery carries no more than a key, and does what is due or nothing, so a forged one could only cost reads. It is refused
all the same: `/tasks/…` answers to a public name, and runs steps.
"""

from __future__ import annotations

import hmac
import re
import time
from collections.abc import Callable
from hashlib import sha256
from typing import Final, Protocol

from asyncflow.errors import Forbidden, Unauthorized
from runner.auth import Headers
from runner.schedulers.base import Terms

TIMESTAMP: Final = "X-Asyncflow-Timestamp"
"""The instant a delivery was meant for, in whole seconds since 1970."""
SIGNATURE: Final = "X-Asyncflow-Signature"
"""HMAC-SHA256 in hexadecimal digits, of what `signed_text` gives."""
FRESH_SECONDS: Final = 24 * 3600.0
"""How old a signed delivery may be: a queue that was paused for a night has nothing to throw away. One that was copied does
nothing that the first did not do."""
EARLY_SECONDS: Final = 300.0
"""How far the clock of the signer may be ahead."""

_SECONDS: Final = re.compile(r"\d{1,12}", re.ASCII)


class Verifier(Protocol):
    """Tells deliveries from what others send."""

    def check(self, headers: Headers, kind: str, body: bytes) -> None:
        """Accept a delivery, or raise.

        Args:
            headers: Of the request.
            kind: `wake` or `sweep`.
            body: As it came.

        Raises:
            Unauthorized: it brings no proof.
            Forbidden: its proof is none, is for somebody else, or is too old.
            Unavailable: what is needed to look at the proof cannot be had just now.
        """
        ...


def signed_text(kind: str, timestamp: str, body: bytes) -> bytes:
    """Give what is signed: `asyncflow:wake:1717000000:{"workflow":…}`; a signature for one kind is none for the other."""
    return f"asyncflow:{kind}:{timestamp}:".encode() + body


class Signatures:
    """Signs with the first of some keys, and accepts what was signed with any: so a key is changed without a gap.

    Args:
        keys: The new one first; the old one may go when nothing that was signed with it is on its way.
        now: Seconds since 1970.
    """

    def __init__(self, keys: tuple[str, ...], now: Callable[[], float] = time.time) -> None:
        self._keys = [key.encode() for key in keys]
        self._now = now

    def sign(self, kind: str, body: bytes, at: float | None = None) -> dict[str, str]:
        """Give the headers of a delivery that is meant for *at*, seconds since 1970; default: now."""
        timestamp = str(int(self._now() if at is None else at))
        return {TIMESTAMP: timestamp, SIGNATURE: _digest(self._keys[0], kind, timestamp, body)}

    def check(self, headers: Headers, kind: str, body: bytes) -> None:
        """See `Verifier.check`."""
        timestamp, signature = headers.get(TIMESTAMP), headers.get(SIGNATURE)
        if timestamp is None or signature is None:
            raise Unauthorized(f"expected a delivery of the scheduler, signed by {TIMESTAMP} and {SIGNATURE}")
        if not _SECONDS.fullmatch(timestamp):
            raise Forbidden(f"expected {TIMESTAMP} to be whole seconds since 1970")
        given = signature.encode("utf-8", "replace")
        fits = [hmac.compare_digest(_digest(key, kind, timestamp, body).encode(), given) for key in self._keys]
        if not any(fits):
            raise Forbidden(f"expected a {SIGNATURE} made with a key of this app, of this very body and {TIMESTAMP}")
        age = self._now() - int(timestamp)
        if not -EARLY_SECONDS <= age <= FRESH_SECONDS:
            raise Forbidden(f"expected a {TIMESTAMP} of the last {FRESH_SECONDS / 3600:g} hours, found one {age:.0f} s old")


class AnyOf:
    """Accepts what one of two accepts: signatures where the delivery is signed, else tokens.

    In this order, since a platform that has looked at a token itself may hand it on without its signature.
    """

    def __init__(self, signatures: Verifier, tokens: Verifier) -> None:
        self._signatures = signatures
        self._tokens = tokens

    def check(self, headers: Headers, kind: str, body: bytes) -> None:
        """See `Verifier.check`."""
        chosen = self._tokens if headers.get(SIGNATURE) is None else self._signatures
        chosen.check(headers, kind, body)


def verifier_of(terms: Terms) -> Verifier | None:
    """Give what verifies deliveries on these terms; None where they say nothing that could."""
    signatures = Signatures(terms.hmac_keys) if terms.hmac_keys else None
    if terms.service_account is None:
        return signatures
    from runner.schedulers.cloud_tasks_oidc import Tokens  # noqa: PLC0415 - dear to import

    tokens = Tokens(
        audience=terms.expected_audience, service_account=terms.service_account, platform=terms.verified_by == "platform"
    )
    return tokens if signatures is None else AnyOf(signatures, tokens)


def _digest(key: bytes, kind: str, timestamp: str, body: bytes) -> str:
    return hmac.new(key, signed_text(kind, timestamp, body), sha256).hexdigest()
