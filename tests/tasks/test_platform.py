"""Tokens whose signature the platform in front has verified and taken off: accepted only where a setting says that it does."""

import base64
import json
import time
from typing import Any

import pytest

from asyncflow.errors import Forbidden
from runner.deliveries import verifier_of
from runner.schedulers.base import Terms
from runner.schedulers.cloud_tasks_oidc import ISSUERS, REMOVED

AUDIENCE = "https://shop.example.com"
ACCOUNT = "tasks@shop.iam.gserviceaccount.com"


def part(value: Any) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()


def delivered(signature: str = REMOVED, **claims: Any) -> dict[str, str]:
    """The headers of a delivery as the platform passes it on."""
    said = {
        "iss": min(ISSUERS), "aud": AUDIENCE, "email": ACCOUNT, "email_verified": True, "iat": time.time(), "exp": time.time() + 60,
    }  # fmt: skip
    return {"Authorization": f"Bearer {part({'alg': 'RS256', 'kid': 'k'})}.{part(said | claims)}.{signature}"}


def check(headers: dict[str, str], *, platform: bool = True) -> None:
    terms = Terms(AUDIENCE, None, ACCOUNT, verified_by="platform" if platform else "app")
    verifier = verifier_of(terms)
    assert verifier is not None
    verifier.check(headers, "wake", b"{}")


def test_the_platform_is_believed_where_the_setting_says_so() -> None:
    check(delivered())


def test_it_is_not_believed_otherwise_and_the_refusal_names_the_setting() -> None:
    with pytest.raises(Forbidden, match="set verified_by to platform"):
        check(delivered(), platform=False)


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "https://other.example.com"},
        {"email": "mallory@shop.iam.gserviceaccount.com"},
        {"email_verified": False},
        {"iss": "https://issuer.example.com"},
        {"exp": 1.0},
        {"exp": None},
        {"exp": "soon"},
    ],
    ids=str,
)
def test_what_the_token_says_is_still_checked(claims: dict[str, Any]) -> None:
    with pytest.raises(Forbidden):
        check(delivered(**claims))


@pytest.mark.parametrize("token", [f"Bearer x.{REMOVED}", f"Bearer ..{REMOVED}", f"Bearer {REMOVED}"])
def test_what_is_no_token_is_refused(token: str) -> None:
    with pytest.raises(Forbidden):
        check({"Authorization": token})
