"""A person signs in: with a code, or in a browser that comes back to a loopback address."""

from __future__ import annotations

import re
import threading
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from local.fake_graph.state import CLIENT, TENANT
from shared import bootstrap
from shared.graph.errors import TokenRefused, TokenUnavailable
from shared.graph.sign_in import with_browser
from shared.sign_in import main
from tests.integration.identity.conftest import DISPATCH, SERVICE, Product


class Browser:
    """Follows the authority's page as a browser does: it posts the form to wherever it leads."""

    def __init__(self, product: Product) -> None:
        self._session = requests.Session()
        self._session.trust_env = False
        self._ca_file = str(product.graph.ca_file)
        self.address = ""
        self.page = ""

    def open(self, address: str) -> None:
        self.address = address
        threading.Thread(target=self._follow, args=(address,), daemon=True).start()

    def _follow(self, address: str) -> None:
        answer = self._session.get(address, timeout=10, verify=self._ca_file)
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', answer.text))
        action = re.search(r'action="([^"]+)"', answer.text)
        if action is not None:
            self.page = self._session.post(action[1], data=fields, timeout=10).text


@pytest.fixture
def browser(product: Product) -> Browser:
    return Browser(product)


def test_a_browser_signs_in_with_pkce_and_a_loopback_address(product: Product, browser: Browser) -> None:
    shown: list[str] = []
    assert bootstrap.sign_in(shown.append, DISPATCH, partial(with_browser, open_page=browser.open)) == DISPATCH
    asked = {name: values[0] for name, values in parse_qs(urlsplit(browser.address).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert asked["redirect_uri"].startswith("http://localhost:")
    assert asked["login_hint"] == DISPATCH
    assert browser.address in shown[0]
    assert "complete" in browser.page
    assert bootstrap.service_account_tokens(DISPATCH).token(refused="")
    assert product.value("select count(*) from queue.token_cache") == 1


def test_somebody_else_in_the_browser_is_refused(product: Product, browser: Browser) -> None:
    product.graph.control("POST", "browser", {"user": DISPATCH})
    with pytest.raises(TokenRefused, match=r"Sign in as queue@fleet\.example"):
        bootstrap.sign_in(print, SERVICE, partial(with_browser, open_page=browser.open))
    assert product.value("select count(*) from queue.token_cache") == 0


def test_a_declined_consent_is_told(product: Product, browser: Browser) -> None:
    product.graph.control("POST", "app/consent", {"user": SERVICE, "granted": False})
    with pytest.raises(TokenRefused, match="AADSTS65004"):
        bootstrap.sign_in(print, SERVICE, partial(with_browser, open_page=browser.open))


def test_nobody_in_the_browser_ends_in_time(product: Product) -> None:
    with pytest.raises(TokenUnavailable, match="nobody signed in within the time"):
        bootstrap.sign_in(print, SERVICE, partial(with_browser, open_page=lambda _: None, seconds=1))


def test_a_redirect_that_is_not_registered_is_an_error_of_the_authority(product: Product) -> None:
    product.graph.control("POST", "app/sign-in", {"redirectUris": ["https://app.example/back"]})
    answer = authorize(product, redirect_uri="http://localhost:5000")
    assert answer.json()["error_codes"] == [50011]


def test_a_code_is_good_once_with_its_verifier_and_its_redirect(product: Product) -> None:
    def code() -> str:
        answer = authorize(
            product, redirect_uri="http://localhost:5000", code_challenge="x" * 43, code_challenge_method="S256"
        )
        assert answer.status_code == 302
        return parse_qs(urlsplit(answer.headers["Location"]).query)["code"][0]

    def redeem(**form: str) -> Any:
        data = {"client_id": CLIENT, "grant_type": "authorization_code", "redirect_uri": "http://localhost:5000"}
        url = f"{product.graph.authority}/{TENANT}/oauth2/v2.0/token"
        return bootstrap.graph_session().post(url, data=data | form).json()

    assert redeem(code=code(), redirect_uri="http://localhost:1")["error_codes"] == [500112]
    assert redeem(code=code(), code_verifier="wrong")["error_codes"] == [501481]
    assert redeem(code="none")["error_codes"] == [9002313]
    plain = authorize(product, redirect_uri="http://localhost:5000").headers["Location"]
    once = parse_qs(urlsplit(plain).query)["code"][0]
    assert "access_token" in redeem(code=once)
    assert redeem(code=once)["error_codes"] == [54005]


def authorize(product: Product, **query: str) -> requests.Response:
    given = {"client_id": CLIENT, "response_type": "code", "scope": "User.Read", "login_hint": SERVICE, "state": "s"}
    url = f"{product.graph.authority}/{TENANT}/oauth2/v2.0/authorize"
    return bootstrap.graph_session().get(url, params=given | query)


def test_the_command_signs_in_and_says_what_went_wrong(product: Product) -> None:
    said: list[str] = []

    def say(text: str) -> None:
        said.append(text)
        if "enter the code" in text:
            product.graph.approve(text.split("enter the code ")[1].split()[0], DISPATCH)

    assert main(["--account", DISPATCH], say) == 0
    assert said[-1] == f"{DISPATCH} is signed in; jobs that waited for it go on."
    assert main(["--account", "other@fleet.example"], say) == 1
    assert "GRAPH_SERVICE_ACCOUNT: other@fleet.example is not in it" in said[-1]
    product.graph.control("POST", "app/sign-in", {"publicClient": False})
    assert main(["--account", DISPATCH], say) == 1
    assert "Allow public client flows" in said[-1]


def test_the_other_account_is_signed_in_apart(product: Product) -> None:
    product.sign_in()
    product.sign_in(DISPATCH)
    assert product.value("select count(*) from queue.token_cache") == 2
    product.graph.control("POST", "revoke-sessions", {"user": SERVICE})
    assert bootstrap.service_account_tokens(DISPATCH).token(refused="")
    assert "AADSTS50173" in (bootstrap.identity._failure_of(SERVICE) or "")
