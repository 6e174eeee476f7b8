"""The authority: OpenID discovery, tokens by client credentials, device code and refresh token, errors as AADSTS."""

from __future__ import annotations

import base64
import json
import secrets
import time
import uuid
from typing import Any

import jwt

from local.fake_graph import tokens
from local.fake_graph.call import Answer, Json, utc_now
from local.fake_graph.state import CLIENT, SECRET, TENANT, User, World

#: What an administrator has granted to the app, and what users may be asked for.
APPLICATION_PERMISSIONS = [
    "Mail.ReadWrite", "Mail.Send", "Chat.Read.All", "ChannelMessage.Read.All", "User.Read.All",
    "TeamsActivity.Send",
]  # fmt: skip
DELEGATED_PERMISSIONS = [
    "Chat.ReadWrite", "Chat.Read", "ChatMessage.Send", "ChatMessage.Read", "ChannelMessage.Send",
    "ChannelMessage.Read.All", "User.Read",
]  # fmt: skip
OPENID_SCOPES = {"openid", "profile", "offline_access", "email"}
#: Refresh tokens have an audience of their own, so that none passes for an access token.
REFRESH = "urn:fake:refresh"
DEVICE_CODE_SECONDS = 900
TOKEN_SECONDS = 3599


class AuthorityError(Exception):
    """An OAuth error; `number` is the AADSTS code."""

    def __init__(self, error: str, number: int, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.error = error
        self.number = number
        self.message = message
        self.status = status

    def answer(self, correlation_id: str) -> Answer:
        trace_id = str(uuid.uuid4())
        now = utc_now().strftime("%Y-%m-%d %H:%M:%SZ")
        text = f"AADSTS{self.number}: {self.message} Trace ID: {trace_id} Correlation ID: {correlation_id}"
        body = {
            "error": self.error,
            "error_description": f"{text} Timestamp: {now}",
            "error_codes": [self.number],
            "timestamp": now,
            "trace_id": trace_id,
            "correlation_id": correlation_id,
        }
        return Answer(self.status, body)


class Authority:
    """The endpoints of the one tenant under `base_url`."""

    def __init__(self, world: World, base_url: str) -> None:
        self._world = world
        self._base_url = base_url

    def answer(self, method: str, path: str, form: dict[str, str], headers: dict[str, str]) -> Answer:
        """Answer a request to /{tenant}/…; `form` is its decoded body."""
        correlation_id = headers.get("client-request-id", str(uuid.uuid4()))
        tenant, _, rest = path.strip("/").partition("/")
        try:
            if tenant != TENANT:
                raise AuthorityError("invalid_tenant", 90002, f"Tenant '{tenant}' not found.")
            match method, rest:
                case "GET", "v2.0/.well-known/openid-configuration":
                    return Answer(200, self._discovery())
                case "GET", "discovery/v2.0/keys":
                    return Answer(200, {"keys": []})
                case "POST", "oauth2/v2.0/token":
                    return Answer(200, self._token(form), {"Cache-Control": "no-store"})
                case "POST", "oauth2/v2.0/devicecode":
                    return Answer(200, self._device_code(form))
        except AuthorityError as error:
            return error.answer(correlation_id)
        return AuthorityError("invalid_request", 900561, f"No endpoint {method} /{rest}.", 404).answer(correlation_id)

    def approve(self, user_code: str, user: User) -> None:
        """The user signs in with the code that a device showed; KeyError when there is no such code."""
        for code in self._world.device_codes.values():
            if code["user_code"] == user_code.strip().upper():
                code["user"] = user.id
                return
        raise KeyError(user_code)

    def _discovery(self) -> Json:
        root = f"{self._base_url}/{TENANT}"
        return {
            "issuer": f"{root}/v2.0",
            "authorization_endpoint": f"{root}/oauth2/v2.0/authorize",
            "token_endpoint": f"{root}/oauth2/v2.0/token",
            "device_authorization_endpoint": f"{root}/oauth2/v2.0/devicecode",
            "jwks_uri": f"{root}/discovery/v2.0/keys",
            "response_types_supported": ["code", "id_token"],
            "scopes_supported": sorted(OPENID_SCOPES),
            "subject_types_supported": ["pairwise"],
            "id_token_signing_alg_values_supported": ["HS256"],
        }

    def _token(self, form: dict[str, str]) -> Json:
        client = form.get("client_id", "")
        if client != CLIENT:
            raise AuthorityError(
                "unauthorized_client", 700016,
                f"Application with identifier '{client}' was not found in the directory '{TENANT}'.",
            )  # fmt: skip
        if "client_secret" in form and form["client_secret"] != SECRET:
            raise AuthorityError("invalid_client", 7000215, "Invalid client secret provided.", 401)
        match form.get("grant_type"):
            case "client_credentials":
                return self._app_token(form)
            case "refresh_token":
                return self._refreshed(form)
            case "device_code" | "urn:ietf:params:oauth:grant-type:device_code":
                return self._device_token(form)
            case grant:
                raise AuthorityError("unsupported_grant_type", 70003, f"The grant type '{grant}' is not known.")

    def _app_token(self, form: dict[str, str]) -> Json:
        if "client_secret" not in form:
            raise AuthorityError("invalid_client", 7000216, "'client_assertion' or 'client_secret' is required.", 401)
        audience = form.get("scope", "").removesuffix("/.default")
        if audience not in (tokens.GRAPH, tokens.BOT_FRAMEWORK) or not form["scope"].endswith("/.default"):
            raise AuthorityError(
                "invalid_scope", 1002012,
                f"The provided value for scope {form.get('scope')} is not valid. Client credential flows must have "
                "a scope value with /.default suffixed to the resource identifier (application ID URI).",
            )  # fmt: skip
        return {
            "token_type": "Bearer",
            "expires_in": TOKEN_SECONDS,
            "ext_expires_in": TOKEN_SECONDS,
            "access_token": self._access_token(None, APPLICATION_PERMISSIONS, form, audience),
        }

    def _device_code(self, form: dict[str, str]) -> Json:
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

    def _device_token(self, form: dict[str, str]) -> Json:
        device_code = form.get("device_code", "")
        code = self._world.device_codes.get(device_code)
        if code is None:
            raise AuthorityError("bad_verification_code", 70019, "The verification code is not known.")
        if code["expires_at"] < time.time():
            raise AuthorityError("expired_token", 70020, "The provided value for device_code has expired.")
        if code["user"] is None:
            raise AuthorityError(
                "authorization_pending", 70016, "OAuth 2.0 device flow error. Authorization is pending."
            )
        del self._world.device_codes[device_code]
        return self._user_token(self._world.user(code["user"]), code["scope"], form)

    def _refreshed(self, form: dict[str, str]) -> Json:
        try:
            payload = tokens.verify(form.get("refresh_token", ""), REFRESH)
        except jwt.InvalidTokenError:
            raise AuthorityError("invalid_grant", 9002313, "The refresh token is malformed.") from None
        user = self._world.find_user(payload["oid"])
        if user is None or payload["issued"] < self._world.sessions_valid_from:
            raise AuthorityError("invalid_grant", 50173, "The provided grant has expired due to it being revoked.")
        return self._user_token(user, form.get("scope") or payload["scope"], form)

    def _user_token(self, user: User, scope: str, form: dict[str, str]) -> Json:
        permissions = permissions_of(scope)
        now = time.time()
        identity = {
            "aud": CLIENT, "iss": f"{self._base_url}/{TENANT}/v2.0", "iat": int(now), "exp": int(now) + 3600,
            "sub": f"pairwise-{user.id}", "oid": user.id, "tid": TENANT, "preferred_username": user.upn,
            "name": user.name, "ver": "2.0",
        }  # fmt: skip
        refresh = {"aud": REFRESH, "oid": user.id, "scope": scope, "issued": now, "jti": uuid.uuid4().hex}
        client_info = json.dumps({"uid": user.id, "utid": TENANT}).encode()
        return {
            "token_type": "Bearer",
            "scope": scope,
            "expires_in": TOKEN_SECONDS,
            "ext_expires_in": TOKEN_SECONDS,
            "access_token": self._access_token(user.id, permissions, form),
            "refresh_token": tokens.sign(refresh),
            "id_token": tokens.sign(identity),
            "client_info": base64.urlsafe_b64encode(client_info).decode().rstrip("="),
        }

    def _access_token(
        self, user: str | None, permissions: list[str], form: dict[str, str], audience: str = tokens.GRAPH
    ) -> str:
        claims: Any = None
        if form.get("claims"):
            try:
                claims = json.loads(form["claims"])
            except ValueError:
                raise AuthorityError("invalid_request", 50146, "The claims parameter is not JSON.") from None
        return tokens.access_token(
            tenant=TENANT, client=CLIENT, user=user, scopes=permissions,
            seconds=TOKEN_SECONDS, claims=claims, audience=audience,
        )  # fmt: skip


def permissions_of(scope: str) -> list[str]:
    """The delegated permissions that a scope parameter asks for."""
    names = [name.removeprefix(f"{tokens.GRAPH}/") for name in scope.split() if name not in OPENID_SCOPES]
    if names == [".default"]:
        return DELEGATED_PERMISSIONS
    unknown = [name for name in names if name not in DELEGATED_PERMISSIONS]
    if unknown or not names:
        raise AuthorityError(
            "invalid_grant", 65001,
            f"The user or administrator has not consented to use the application with the scopes {unknown}.",
        )  # fmt: skip
    return names
