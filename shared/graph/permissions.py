"""Tells a token that nothing is granted to from one that is refused for a single resource."""

from __future__ import annotations

import jwt

_GRAPH = ("https://graph.microsoft.com", "00000003-0000-0000-c000-000000000000")


def lacks_all_permissions(token: str | None) -> bool:
    """True for a token of Graph that an application got although nothing is granted to it (any more)."""
    if not token:
        return False
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except jwt.InvalidTokenError:
        return False  # not ours to read
    return claims.get("idtyp") == "app" and claims.get("aud") in _GRAPH and not claims.get("roles")
