"""Tokens of the fake authority: JWTs under a key that everybody may know, since they open nothing but the fake."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass
from typing import Any

import jwt

KEY = "a key of the fake authority, which protects nothing"
GRAPH = "https://graph.microsoft.com"
BOT_FRAMEWORK = "https://api.botframework.com"
ISSUER = "https://sts.windows.net"


@dataclass(frozen=True, slots=True)
class Token:
    """A read access token: `subject` is the user's id, or the app's for an app-only one; `scopes` its permissions."""

    kind: str
    subject: str
    scopes: frozenset[str]
    issued_at: float
    expires_at: float
    required_nbf: int

    @property
    def is_user(self) -> bool:
        return self.kind == "user"


def sign(payload: dict[str, Any]) -> str:
    return jwt.encode(payload, KEY, algorithm="HS256")


def verify(text: str, audience: str) -> dict[str, Any]:
    """The payload; jwt.InvalidTokenError when it is not one of ours for `audience`. Expiry is left to the caller."""
    return jwt.decode(text, KEY, algorithms=["HS256"], audience=audience, options={"verify_exp": False})


def access_token(
    *,
    tenant: str,
    client: str,
    user: str | None,
    scopes: list[str],
    seconds: float,
    claims: dict[str, Any] | None,
    audience: str = GRAPH,
) -> str:
    """An access token for an API. `claims` is the request's claims parameter, whose nbf a challenge asks for."""
    now = time.time()
    payload: dict[str, Any] = {
        "aud": audience,
        "iss": f"{ISSUER}/{tenant}/",
        "tid": tenant,
        "appid": client,
        "uti": uuid.uuid4().hex,
        "issued": now,
        "exp": now + seconds,
        "required_nbf": _required_nbf(claims),
    }
    if user is None:
        payload |= {"idtyp": "app", "oid": client, "roles": scopes}
    else:
        payload |= {"idtyp": "user", "oid": user, "scp": " ".join(scopes)}
    return sign(payload)


def read_access_token(text: str, audience: str = GRAPH) -> Token:
    """What the token says; jwt.InvalidTokenError when it is none of ours for this API."""
    payload = verify(text, audience)
    kind = str(payload["idtyp"])
    scopes = payload["roles"] if kind == "app" else payload["scp"].split()
    return Token(
        kind=kind,
        subject=str(payload["oid"]),
        scopes=frozenset(scopes),
        issued_at=float(payload["issued"]),
        expires_at=float(payload["exp"]),
        required_nbf=int(payload["required_nbf"]),
    )


def _required_nbf(claims: dict[str, Any] | None) -> int:
    if not claims:
        return 0
    wanted = claims.get("access_token", {}).get("nbf") or {}
    return int(wanted.get("value", 0))
