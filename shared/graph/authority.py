"""MSAL and its answers: how it calls the authority, and what its results and exceptions mean here.

MSAL remembers failures (a 400 for a minute, a 429 for its Retry-After), which would answer our retries from
memory: the memory is ours (`http_cache`) and is cleared before a retry.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import requests
from msal.exceptions import MsalServiceError

from shared.graph.aadsts import Needs, meaning
from shared.graph.credentials import Application
from shared.graph.errors import TokenFailure, TokenRefused, TokenUnavailable
from shared.graph.retry_after import retry_after
from shared.http_session import HttpSession

_TRANSIENT = {"temporarily_unavailable", "server_error", "request_throttled"}
LONGEST_TEXT = 300


class AuthorityHttp:
    """The session as MSAL uses it; remembers the last answer, since MSAL hides the Retry-After of a 429."""

    def __init__(self, session: HttpSession) -> None:
        self._session = session
        self.last: requests.Response | None = None

    def get(self, url: str, **kwargs: Any) -> requests.Response:
        return self._remember(self._session.get(url, **kwargs))

    def post(self, url: str, **kwargs: Any) -> requests.Response:
        return self._remember(self._session.post(url, **kwargs))

    def close(self) -> None:
        """The session belongs to the process."""

    def _remember(self, response: requests.Response) -> requests.Response:
        self.last = response
        return response

    @property
    def throttled(self) -> bool:
        return self.last is not None and (self.last.status_code == 429 or self.last.status_code >= 500)

    @property
    def retry_after(self) -> timedelta | None:
        return retry_after(self.last.headers) if self.last is not None and self.throttled else None


def msal_options(application: Application, http: AuthorityHttp, http_cache: dict[str, Any]) -> dict[str, Any]:
    """What every MSAL application is built with."""
    return {
        "authority": application.authority_url,
        "instance_discovery": False,
        "http_client": http,
        "http_cache": http_cache,
    }


def guarded(http: AuthorityHttp, ask: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Run an MSAL call; its exceptions become ours."""
    http.last = None
    try:
        return ask()
    except (requests.RequestException, MsalServiceError) as error:
        raise TokenUnavailable(
            f"the authority gives no token now ({type(error).__name__})", retry_after=http.retry_after
        ) from error
    except (ValueError, RuntimeError) as error:  # MSAL's words for an answer that it cannot use
        if http.last is None or http.throttled or http.last.status_code < 400:
            raise TokenUnavailable(
                f"the authority cannot be used ({type(error).__name__})", retry_after=http.retry_after
            ) from error
        raise TokenRefused(
            f"The authority does not know this tenant (it answered {http.last.status_code}).",
            remedy="Check GRAPH_TENANT_ID and GRAPH_AUTHORITY.",
        ) from error


def refusal(http: AuthorityHttp, result: dict[str, Any]) -> TokenFailure:
    """What a result without a token means for the application."""
    if is_transient(http, result):
        return TokenUnavailable(f"The authority is busy: {text_of(result)}", retry_after=http.retry_after)
    known = meaning(codes_of(result))
    remedy = known.remedy if known and known.remedy else "Check the app registration."
    return TokenRefused(f"The authority refuses: {text_of(result)}", remedy=remedy, codes=codes_of(result))


def is_transient(http: AuthorityHttp, result: dict[str, Any]) -> bool:
    known = meaning(codes_of(result))
    return http.throttled or error_of(result) in _TRANSIENT or (known is not None and known.needs is Needs.TIME)


def error_of(result: dict[str, Any]) -> str:
    """The OAuth error; "" where a gateway answered in a form of its own."""
    error = result.get("error")
    return error if isinstance(error, str) else ""


def codes_of(result: dict[str, Any]) -> tuple[int, ...]:
    """The AADSTS codes, as numbers."""
    codes = result.get("error_codes")
    return tuple(code for code in codes if isinstance(code, int)) if isinstance(codes, list) else ()


def text_of(result: dict[str, Any]) -> str:
    """The description without its trailing trace ids, which have lines of their own."""
    text = str(result.get("error_description") or error_of(result) or "no reason given").strip()
    return text.split("\n")[0].split(" Trace ID:")[0].strip()[:LONGEST_TEXT]
