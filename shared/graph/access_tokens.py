"""Access tokens of Microsoft Entra that people and services present to us: for whom they are, and their roles.

Checked: the signature by Entra's own keys, issuer, audience, and times. Source: Microsoft Learn, "Access tokens in the
Microsoft identity platform", validate tokens.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import jwt

from shared.graph.validation_tokens import CLOCK_MARGIN, PAUSE_SECONDS, InvalidTokenError, SigningKeys

#: Keys that are no older decide about a token: Entra tells of a new one long before it signs with it. It is more than
#: the pause between two fetches, or a guesser's tokens could not be judged during it.
FRESH = timedelta(seconds=2 * PAUSE_SECONDS)


class AccessTokens:
    """Reads tokens of one tenant for one audience (the application's id, its id URI, or both)."""

    def __init__(self, keys: SigningKeys, *, tenant_id: str, audiences: tuple[str, ...], authority: str) -> None:
        self._keys = keys
        self._audiences = [*audiences]
        # By version of the token, which follows the app registration's own choice.
        self._issuers = {f"https://sts.windows.net/{tenant_id}/", f"{authority.rstrip('/')}/{tenant_id}/v2.0"}

    def read(self, token: str) -> tuple[str, tuple[str, ...]]:
        """The name of who it is for, and the roles. Raises InvalidTokenError, KeysUnavailableError."""
        claims = self._claims(token)
        issuer = str(claims.get("iss")).lower()
        if issuer not in {known.lower() for known in self._issuers}:
            raise InvalidTokenError("its issuer is not our tenant")
        names = ("preferred_username", "upn", "unique_name", "app_displayname", "azp", "appid", "oid")
        name = next((claims[key] for key in names if isinstance(claims.get(key), str) and claims[key]), None)
        if name is None:
            raise InvalidTokenError("it says of nobody that it is for them")
        roles = claims.get("roles", [])
        return name[:200], tuple(role for role in roles if isinstance(role, str)) if isinstance(roles, list) else ()

    def _claims(self, token: str) -> dict[str, Any]:
        try:
            if not token.isascii():
                raise InvalidTokenError("it is no token")
            key_id = jwt.get_unverified_header(token).get("kid")
            key = self._keys.find(key_id, datetime.now(UTC) - FRESH) if isinstance(key_id, str) else None
            if key is None:
                raise InvalidTokenError("it is signed with a key that is none of Entra's")
            claims: dict[str, Any] = jwt.decode(
                token,
                key,
                algorithms=["RS256"],
                audience=self._audiences,
                leeway=CLOCK_MARGIN,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.InvalidTokenError as error:
            raise InvalidTokenError(f"it does not verify ({type(error).__name__})") from None
        return claims
