"""From the authority's answer to what a person reads, for each code that the table knows."""

from __future__ import annotations

import pytest

from shared.graph.aadsts import MEANINGS, Needs
from shared.graph.credentials import APPLICATION
from shared.graph.delegated_tokens import DelegatedTokens
from shared.graph.errors import SignInRequired, TokenFailure, TokenRefused, TokenUnavailable
from shared.graph.tokens import AppTokens
from tests.integration.graph.conftest import SERVICE, Wired

EXPECTED: dict[Needs, type[TokenFailure]] = {
    Needs.SETTING: TokenRefused,
    Needs.SIGN_IN: SignInRequired,
    Needs.TIME: TokenUnavailable,
}


def refuse(wired: Wired, code: int, error: str) -> None:
    body = {
        "error": error,
        "error_description": f"AADSTS{code}: What Entra ID says. Trace ID: 1 Correlation ID: 2 Timestamp: 3",
        "error_codes": [code],
    }
    wired.graph.add_fault("status", path="/token$", status=400, body=body)


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_a_service_account_is_told_what_to_do(wired: Wired, code: int) -> None:
    refuse(wired, code, "invalid_grant")
    tokens = DelegatedTokens(
        wired.application, wired.session, account=SERVICE, store=wired.store, cipher=wired.tokens._cipher
    )
    meaning = MEANINGS[code]
    with pytest.raises(TokenFailure) as caught:
        tokens.token(refused="")
    failure = caught.value
    assert type(failure) is EXPECTED[meaning.needs]
    assert f"AADSTS{code}: What Entra ID says." in str(failure)
    assert "Trace ID" not in str(failure)
    assert meaning.remedy in str(failure)
    assert failure.identity == (SERVICE if meaning.needs is Needs.SIGN_IN else APPLICATION)
    assert ("./dev sign-in --account" in failure.remedy) == (meaning.needs is Needs.SIGN_IN)


@pytest.mark.parametrize("code", sorted(MEANINGS))
def test_the_application_is_told_what_to_do(wired: Wired, code: int) -> None:
    refuse(wired, code, "invalid_client")
    meaning = MEANINGS[code]
    with pytest.raises(TokenFailure) as caught:
        AppTokens(wired.application, wired.session).token()
    failure = caught.value
    assert type(failure) is (TokenUnavailable if meaning.needs is Needs.TIME else TokenRefused)
    assert failure.identity == APPLICATION
    assert (meaning.remedy or "Check the app registration.") in str(failure) or meaning.needs is Needs.TIME


def test_an_unknown_code_is_shown_as_it_is(wired: Wired) -> None:
    refuse(wired, 4711, "invalid_client")
    with pytest.raises(TokenRefused, match=r"AADSTS4711: What Entra ID says\. Check the app registration\."):
        AppTokens(wired.application, wired.session).token()
