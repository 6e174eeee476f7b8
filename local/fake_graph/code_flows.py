"""How a person signs in: with a device code, or in a browser that comes back with a code (PKCE)."""

from __future__ import annotations

import base64
import hashlib
import html
import re
import secrets
import time
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from local.fake_graph.authority_error import AuthorityError
from local.fake_graph.call import Answer, Json
from local.fake_graph.registration import DELEGATED_PERMISSIONS
from local.fake_graph.state import CLIENT, TENANT, User, World
from local.fake_graph.tokens import GRAPH

OPENID_SCOPES = {"openid", "profile", "offline_access", "email"}
DEVICE_CODE_SECONDS = 900
AUTH_CODE_SECONDS = 600


@dataclass(slots=True)
class AuthCode:
    """A code that a browser carries back; it is good once."""

    user: str
    scope: str
    redirect_uri: str
    challenge: str
    nonce: str
    expires_at: float
    used: bool = False


class CodeFlows:
    """Both flows, up to the user and the scope that the token is for, and the nonce that its request had."""

    def __init__(self, world: World, base_url: str) -> None:
        self._world = world
        self._base_url = base_url

    def device_code(self, form: dict[str, str]) -> Json:
        if form.get("client_id") != CLIENT:
            raise AuthorityError("unauthorized_client", 700016, "The application was not found.")
        scope = form.get("scope", "")
        permissions_of(scope)
        code = secrets.token_urlsafe(32)
        user_code = "".join(secrets.choice("BCDFGHJKLMNPQRSTVWXZ23456789") for _ in range(9))
        uri = f"{self._base_url}/{TENANT}/oauth2/deviceauth"
        self._world.device_codes[code] = {
            "user_code": user_code,
            "scope": scope,
            "expires_at": time.time() + DEVICE_CODE_SECONDS,
            "user": None,
        }
        return {
            "device_code": code,
            "user_code": user_code,
            "verification_uri": uri,
            "expires_in": DEVICE_CODE_SECONDS,
            "interval": 1,
            "message": f"To sign in, open {uri} and enter the code {user_code} to authenticate.",
        }

    def approve(self, user_code: str, user: User) -> None:
        """The user signs in with the code that a device showed; KeyError when there is no such code."""
        for code in self._world.device_codes.values():
            if code["user_code"] == user_code.strip().upper():
                code["user"] = user.id
                return
        raise KeyError(user_code)

    def redeem_device_code(self, form: dict[str, str]) -> tuple[User, str]:
        device_code = form.get("device_code", "")
        code = self._world.device_codes.get(device_code)
        if code is None:
            raise AuthorityError("bad_verification_code", 70018, "The verification code is not known.")
        if code["expires_at"] < time.time():
            raise AuthorityError("expired_token", 70019, "The provided value for device_code has expired.")
        if code["user"] is None:
            raise AuthorityError(
                "authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending."
            )
        del self._world.device_codes[device_code]
        return self._world.user(code["user"]), code["scope"]

    def authorize(self, query: dict[str, str]) -> Answer:
        """The page that the browser ends on: it goes back to the redirect URI with a code, or with an error."""
        if query.get("client_id") != CLIENT:
            raise AuthorityError("unauthorized_client", 700016, "The application was not found.")
        redirect_uri = query.get("redirect_uri", "")
        if _without_port(redirect_uri) not in map(_without_port, self._world.registration.redirect_uris):
            text = f"The redirect URI '{redirect_uri}' specified in the request does not match the ones configured."
            raise AuthorityError("invalid_request", 50011, text)
        if query.get("response_type") != "code":
            raise AuthorityError("unsupported_response_type", 70005, "The response type must be code.")
        if query.get("code_challenge_method", "S256") != "S256":
            raise AuthorityError("invalid_request", 501491, "The code challenge's method must be S256.")
        permissions_of(query.get("scope", ""))
        return _back(query, self._outcome(query))

    def redeem_auth_code(self, form: dict[str, str]) -> tuple[User, str, str]:
        code = self._world.auth_codes.get(form.get("code", ""))
        if code is None:
            raise AuthorityError("invalid_grant", 9002313, "The authorization code is malformed or invalid.")
        if code.used:
            raise AuthorityError("invalid_grant", 54005, "OAuth2 Authorization code was already redeemed.")
        if code.expires_at < time.time():
            raise AuthorityError("invalid_grant", 70008, "The authorization code has expired.")
        if form.get("redirect_uri") != code.redirect_uri:
            raise AuthorityError("invalid_grant", 500112, "The reply address is not that of the authorization request.")
        verifier = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
        if code.challenge and base64.urlsafe_b64encode(verifier).decode().rstrip("=") != code.challenge:
            raise AuthorityError("invalid_grant", 501481, "The Code_Verifier does not match the code_challenge.")
        code.used = True
        return self._world.user(code.user), code.scope, code.nonce

    def _outcome(self, query: dict[str, str]) -> dict[str, str]:
        """Who sits before the browser says yes, with the account of the hint unless it is another's browser."""
        user = self._world.find_user(self._world.browser_user or query.get("login_hint", ""))
        if user is None:
            return {"error": "access_denied", "error_description": "AADSTS50034: The account does not exist."}
        if user.id in self._world.registration.without_consent:
            return {"error": "access_denied", "error_description": "AADSTS65004: User declined to consent."}
        code = secrets.token_urlsafe(48)
        self._world.auth_codes[code] = AuthCode(
            user.id,
            query.get("scope", ""),
            query["redirect_uri"],
            query.get("code_challenge", ""),
            query.get("nonce", ""),
            time.time() + AUTH_CODE_SECONDS,
        )
        return {"code": code}


def permissions_of(scope: str) -> list[str]:
    """The delegated permissions that a scope parameter asks for."""
    names = [name.removeprefix(f"{GRAPH}/") for name in scope.split() if name not in OPENID_SCOPES]
    if names == [".default"]:
        return DELEGATED_PERMISSIONS
    unknown = [name for name in names if name not in DELEGATED_PERMISSIONS]
    if unknown or not names:
        raise AuthorityError(
            "invalid_grant", 65001,
            f"The user or administrator has not consented to use the application with the scopes {unknown}.",
        )  # fmt: skip
    return names


def _back(query: dict[str, str], outcome: dict[str, str]) -> Answer:
    fields = outcome | ({"state": query["state"]} if "state" in query else {})
    if query.get("response_mode", "query") != "form_post":
        return Answer(302, None, {"Location": f"{query['redirect_uri']}?{urlencode(fields)}"})
    inputs = "".join(
        f'<input type="hidden" name="{name}" value="{html.escape(value)}">' for name, value in fields.items()
    )
    page = (
        f'<html><body onload="document.forms[0].submit()"><form method="post" action="'
        f'{html.escape(query["redirect_uri"])}">{inputs}<button>Continue</button></form></body></html>'
    )
    return Answer(200, page.encode(), content_type="text/html")


def _without_port(uri: str) -> str:
    """Of a loopback address any port will do."""
    return re.sub(r":\d+", "", uri).rstrip("/") if urlsplit(uri).hostname == "localhost" else uri
