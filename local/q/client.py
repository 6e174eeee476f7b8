"""The admin API over HTTP: each operation of shared.admin.routes by its name, and every refusal as a CommandError."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests

from local.q.errors import CommandError, Exit, usage
from local.q.target import KEY, TOKEN, Target
from shared.admin.routes import ROUTES

Json = dict[str, Any]
#: To connect, and to wait for an answer: an app in Azure that sleeps takes a while.
TIMEOUT_SECONDS = (10.0, 90.0)
OPERATIONS = {route.operation: route for route in ROUTES}
CODES = {401: Exit.NOT_ALLOWED, 403: Exit.NOT_ALLOWED, 404: Exit.NOT_FOUND, 429: Exit.NOT_ALLOWED}
HINTS = {
    401: f"Set {KEY} to the app's ADMIN_KEY, or {TOKEN} to an Entra token for it.",
    403: "Ask an administrator for the role, or use the admin key.",
    429: "Wait a minute, then try with the right key.",
    503: "Ask ./dev q doctor what lacks.",
}


class Client:
    """One connection to one app."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self._session = requests.Session()
        # Neither a proxy for what is on this machine, nor a password of ~/.netrc in place of the token.
        self._session.trust_env = not target.is_local
        self._session.auth = _as_it_is

    def call(self, operation: str, *, query: Mapping[str, Any] | None = None, body: Any = None, **path: str) -> Any:
        """The answer's JSON, or its text; None for an empty one. Raises CommandError."""
        response = self.ask(operation, query=query, body=body, **path)
        if not response.ok or response.is_redirect:
            raise refusal(response, self.target)
        if not response.content:
            return None
        return _json(response, self.target) if "json" in response.headers.get("content-type", "") else response.text

    def ask(
        self, operation: str, *, query: Mapping[str, Any] | None = None, body: Any = None, **path: str
    ) -> requests.Response:
        """The answer as it comes, whatever its status. Raises CommandError when there is none."""
        route = OPERATIONS[operation]
        address = f"{self.target.url}/{route.path.format(**{name: _segment(text) for name, text in path.items()})}"
        given = {name: _spelled(value) for name, value in (query or {}).items() if value is not None}
        headers = {} if route.role is None else dict(self.target.proof)
        try:
            return self._session.request(
                route.method, address, params=given, json=body, headers=headers,
                timeout=TIMEOUT_SECONDS, allow_redirects=False,
            )  # fmt: skip
        except requests.exceptions.InvalidJSONError:
            raise usage("a number is too large, or none (NaN, Infinity): nothing was sent") from None
        except requests.RequestException as error:
            raise unreachable(self.target, error) from None


def _as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _spelled(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _segment(text: str) -> str:
    if text in ("", ".", ".."):
        raise usage(f"{text!r} names nothing")
    return quote(text, safe="")


def refusal(response: requests.Response, target: Target) -> CommandError:
    """What a problem document says, or, from a server that gives none, what may be wrong with the address."""
    code = CODES.get(response.status_code, Exit.UNAVAILABLE if response.status_code >= 500 else Exit.REFUSED)
    hint = HINTS.get(response.status_code)
    try:
        problem = response.json()
        detail = str(problem["detail"])
        found = problem.get("errors") or []
        problems = [(str(one["field"]), str(one["message"])) for one in found]
    except (ValueError, KeyError, TypeError, AttributeError):
        text = f"{target.url} answered {response.status_code} without saying why."
        where = "Is it the address of a Fleet Queue app, and does that app run?"
        return CommandError(code if code is not Exit.NOT_FOUND else Exit.UNAVAILABLE, text, hint=hint or where)
    return CommandError(code, detail, problems=problems, hint=hint)


def _json(response: requests.Response, target: Target) -> Any:
    try:
        return response.json()
    except ValueError:
        text = f"{target.url} answered with something that is not JSON."
        raise CommandError(Exit.UNAVAILABLE, text, hint="Does a proxy or a sign-in page stand before it?") from None


def unreachable(target: Target, error: requests.RequestException) -> CommandError:
    """No answer: without the error's own text, which is long and about sockets."""
    if isinstance(error, requests.exceptions.SSLError):
        why, hint = "has a certificate that is not trusted here", "Look at the address; or set REQUESTS_CA_BUNDLE."
    elif isinstance(error, requests.Timeout):
        why, hint = "does not answer in time", "Try again: an app that sleeps takes a while. Then look at its log."
    elif target.settings:
        why = "cannot be reached: what runs here has no host any more"
        hint = "./dev logs host says why it ended. Then ./dev down, and ./dev up again."
    elif target.is_local:
        why, hint = "cannot be reached", "Start it with ./dev up in another shell, or name another app by --url."
    else:
        why, hint = "cannot be reached", "Look at the address, at the network, and whether the app runs in Azure."
    return CommandError(Exit.UNAVAILABLE, f"{target.url} {why}.", hint=hint)
