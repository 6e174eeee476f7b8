"""Validation tokens: only Graph's own, only for us; and keys that are fetched as seldom as may be, never guessed."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
import requests

from local.fake_graph.rich import CONFIGURATION_PATH, KEYS_PATH, PUBLISHER, TOKEN_SECONDS, Publisher
from local.fake_graph.state import CLIENT, TENANT
from shared.graph.validation_tokens import InvalidTokenError, KeysUnavailableError, SigningKeys, ValidationTokens
from tests.unit.webhooks.vouching import publisher

AUTHORITY = "https://login.example"
ITEMS: list[dict[str, Any]] = [{"encryptedContent": {}}]


class Answer:
    def __init__(self, status: int, document: Any) -> None:
        self.status_code = status
        self._document = document

    def json(self) -> Any:
        if isinstance(self._document, Exception):
            raise self._document
        return self._document


class Session:
    """The authority with a publisher's keys; `fault` answers in place of it."""

    def __init__(self, known: Publisher) -> None:
        self.publisher = known
        self.urls: list[str] = []
        self.fault: Callable[[str], Answer] | None = None

    def request(self, method: str, url: str, **_: Any) -> Any:
        assert method == "GET"
        self.urls.append(url)
        if self.fault is not None:
            return self.fault(url)
        answer = self.publisher.answer(url.removeprefix(AUTHORITY), AUTHORITY)
        return Answer(answer.status, answer.body)

    @property
    def fetches(self) -> int:
        return sum(url.endswith(KEYS_PATH) for url in self.urls)


class Bench:
    def __init__(self) -> None:
        self.publisher = publisher()
        self.publisher.reset()
        self.session = Session(self.publisher)
        self.now = datetime.now(UTC)
        self.seconds = 1000.0
        session: Any = self.session
        self.keys = SigningKeys(session, AUTHORITY, clock=lambda: self.now, monotonic=lambda: self.seconds)
        self.judge = ValidationTokens(self.keys, tenant_id=TENANT, client_id=CLIENT, authority=AUTHORITY)

    def pass_(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)
        self.seconds += seconds

    def tokens(self, **order: Any) -> list[str]:
        self.publisher.order(order)
        return self.publisher.tokens(ITEMS, AUTHORITY)

    def check(self, tokens: list[str], since: float = 0) -> None:
        """Of a delivery that came in so many seconds ago."""
        self.judge.check(tokens, self.now - timedelta(seconds=since))


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_graphs_token_for_us_is_good_in_both_versions(bench: Bench, version: str) -> None:
    bench.check(bench.tokens(version=version))
    bench.check(bench.tokens(version=version) * 2)


def test_ids_in_settings_may_be_written_in_capitals(bench: Bench) -> None:
    judge = ValidationTokens(bench.keys, tenant_id=TENANT.upper(), client_id=CLIENT.upper(), authority=AUTHORITY)
    judge.check(bench.tokens(), bench.now)


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("expired", "expired"),
        ("audience", "another application"),
        ("issuer", "not our tenant"),
        ("publisher", "publisher"),
        ("key", "InvalidSignature"),
        ("algorithm", "InvalidAlgorithm|InvalidKey"),
    ],
)
@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_every_other_token_is_refused_also_beside_a_good_one(
    bench: Bench, fault: str, reason: str, version: str
) -> None:
    good = bench.tokens(version=version)
    bad = bench.tokens(token=fault, version=version)
    for tokens in (bad, good + bad, bad + good):
        with pytest.raises(InvalidTokenError, match=reason) as caught:
            bench.check(tokens)
        assert not any(token in str(caught.value) for token in tokens)


def test_no_token_is_no_proof(bench: Bench) -> None:
    with pytest.raises(InvalidTokenError):
        bench.check([])


@pytest.mark.parametrize("token", ["", "x", "a.b.c", "é", "eyJhbGciOiJub25lIn0.e30.", "\ud83d"], ids=ascii)
def test_a_text_that_is_no_token_is_refused(bench: Bench, token: str) -> None:
    with pytest.raises(InvalidTokenError):
        bench.check([token])


@pytest.mark.parametrize(
    "change",
    [{"exp": None}, {"exp": "soon"}, {"exp": 1e30}, {"nbf": "x"}, {"aud": [CLIENT]}, {"aud": None}, {"iss": None},
     {"appid": None}, {"ver": "3.0"}, {"ver": "2.0"}, {"nbf": 9_999_999_999}],
    ids=repr,
)  # fmt: skip
def test_claims_of_another_form_are_refused_and_never_an_error_of_another_kind(
    bench: Bench, change: dict[str, Any]
) -> None:
    now = int(bench.now.timestamp())
    claims: dict[str, Any] = {
        "aud": CLIENT, "iss": f"https://sts.windows.net/{TENANT}/", "exp": now + 60, "nbf": now, "appid": PUBLISHER,
        "ver": "1.0",
    }  # fmt: skip
    key_id, key = next(iter(bench.publisher._keys.items()))

    def signed(payload: dict[str, Any]) -> str:
        kept = {name: value for name, value in payload.items() if value is not None}
        return jwt.encode(kept, key, algorithm="RS256", headers={"kid": key_id})

    bench.check([signed(claims)])
    with pytest.raises(InvalidTokenError):
        bench.check([signed(claims | change)])


def test_a_token_is_judged_by_the_time_when_it_came_in(bench: Bench) -> None:
    """It may have waited in the queue for longer than it lives."""
    tokens, waited = bench.tokens(), TOKEN_SECONDS + 3600
    came_in = bench.now
    bench.pass_(waited)
    bench.judge.check(tokens, came_in)
    with pytest.raises(InvalidTokenError, match="expired"):
        bench.check(tokens)


def test_keys_are_fetched_once_and_again_after_a_day(bench: Bench) -> None:
    for _ in range(50):
        bench.check(bench.tokens(), since=1)
    assert bench.session.fetches == 1
    bench.pass_(25 * 3600)
    now = bench.now
    bench.judge.check(bench.tokens(), now - timedelta(hours=20))
    assert bench.session.fetches == 2


def test_a_new_key_is_fetched_when_a_token_names_it(bench: Bench) -> None:
    bench.check(bench.tokens(), since=1)
    bench.pass_(61)
    bench.check(bench.tokens(rotate=True), since=1)
    assert bench.session.fetches == 2


def test_an_unknown_key_waits_while_keys_were_fetched_a_moment_ago_and_is_then_judged(bench: Bench) -> None:
    bench.check(bench.tokens(), since=1)
    tokens = bench.tokens(rotate=True)
    bench.pass_(10)
    with pytest.raises(KeysUnavailableError):
        bench.check(tokens)
    assert bench.session.fetches == 1
    bench.pass_(51)
    bench.check(tokens, since=51)


def test_forged_key_ids_cost_one_fetch_a_minute_and_are_all_judged_by_it(bench: Bench) -> None:
    bench.check(bench.tokens(), since=1)
    forged = [jwt.encode({"n": n}, "k" * 32, algorithm="HS256", headers={"kid": f"k{n}"}) for n in range(100)]
    bench.pass_(61)
    for token in forged:
        with pytest.raises(InvalidTokenError, match="none of Entra's"):
            bench.check([token], since=1)
    assert bench.session.fetches == 2


def _raise(error: Exception) -> Any:
    raise error


FAULTS: list[Callable[[str], Any]] = [
    lambda _: Answer(503, {}),
    lambda _: Answer(200, ValueError("no JSON")),
    lambda _: Answer(200, []),
    lambda _: Answer(200, {}),
    lambda _: _raise(requests.ConnectionError("away")),
    lambda _: _raise(requests.Timeout("slow")),
    lambda _: Answer(200, {"jwks_uri": f"https://attacker.example{KEYS_PATH}"}),
    lambda _: Answer(200, {"jwks_uri": f"http://login.example{KEYS_PATH}"}),
    lambda url: Answer(200, {"jwks_uri": AUTHORITY + KEYS_PATH} if url.endswith(CONFIGURATION_PATH) else {"keys": []}),
    lambda url: Answer(
        200,
        {"jwks_uri": AUTHORITY + KEYS_PATH, "keys": [None, 5, {"kty": "EC", "kid": "x"}, {"kty": "RSA", "kid": "y"}]},
    ),
]


@pytest.mark.parametrize("fault", FAULTS)
def test_without_keys_nothing_is_accepted_nor_refused(bench: Bench, fault: Callable[[str], Any]) -> None:
    tokens = bench.tokens()
    bench.session.fault = fault
    with pytest.raises(KeysUnavailableError):
        bench.check(tokens)
    asked = len(bench.session.urls)
    with pytest.raises(KeysUnavailableError):
        bench.check(tokens)
    assert len(bench.session.urls) == asked, "a peer that is away is not asked again at once"
    assert not any("attacker" in url for url in bench.session.urls)
    bench.session.fault = None
    bench.pass_(6)
    bench.check(tokens, since=6)


def test_keys_that_are_too_old_do_not_stand_in_while_the_authority_is_away(bench: Bench) -> None:
    bench.check(bench.tokens(), since=1)
    bench.pass_(25 * 3600)
    bench.session.fault = FAULTS[0]
    with pytest.raises(KeysUnavailableError):
        bench.check(bench.tokens())


def test_many_threads_at_the_start_share_one_fetch(bench: Bench) -> None:
    tokens, gate = bench.tokens(), threading.Event()
    usual = bench.session.publisher.answer

    def slow(url: str) -> Answer:
        gate.wait(10)
        answer = usual(url.removeprefix(AUTHORITY), AUTHORITY)
        return Answer(answer.status, answer.body)

    bench.session.fault = slow
    with ThreadPoolExecutor(16) as pool:
        checks = [pool.submit(bench.check, tokens, 1) for _ in range(16)]
        gate.set()
        for check in checks:
            check.result(10)
    assert bench.session.fetches == 1


def test_a_fetch_that_ends_in_another_error_leaves_nobody_waiting(bench: Bench) -> None:
    bench.session.fault = lambda _: _raise(MemoryError())
    with pytest.raises(MemoryError):
        bench.check(bench.tokens())
    bench.session.fault = None
    bench.pass_(6)
    bench.check(bench.tokens(), since=1)
