"""Who is let in: keys, tokens, App Service; and how guessers are slowed."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key

from shared.access import (
    KEY_HEADER,
    MOST_REFUSALS,
    PRINCIPAL_HEADER,
    AdminAccess,
    Principal,
    Role,
    TokensUnavailableError,
    Verdict,
)
from shared.graph.access_tokens import AccessTokens
from shared.graph.validation_tokens import InvalidTokenError, SigningKeys

KEY, OLD = "k" * 40, "o" * 40
TENANT, AUDIENCE, AUTHORITY = "11111111-1111-4111-8111-111111111111", "api://fleet-queue", "https://login.example"
PRIVATE = generate_private_key(65537, 2048)
OTHER = generate_private_key(65537, 2048)


def read(token: str) -> tuple[str, Iterable[str]] | None:
    return {"reader": ("r", ["Reader"]), "both": ("b", ["Reader", "Admin", "Else"]), "none": ("n", [])}.get(token)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def principal(document: Any) -> dict[str, str]:
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    return {PRINCIPAL_HEADER: base64.b64encode(raw).decode()}


SIGNED_IN = {"auth_typ": "aad", "name_typ": "name", "role_typ": "roles", "claims": [
    {"typ": "name", "val": "Ada"}, {"typ": "roles", "val": "Operator"}, {"typ": "roles", "val": "Reader"},
]}  # fmt: skip


def test_each_of_two_keys_is_an_admin_with_a_name_of_its_own() -> None:
    access = AdminAccess(KEY, OLD)
    assert access.identify({KEY_HEADER: KEY}) == Principal("key 1", "key", Role.ADMIN)
    assert access.identify({KEY_HEADER: OLD}) == Principal("key 2", "key", Role.ADMIN)
    assert access.identify({KEY_HEADER: ""}) is Verdict.REFUSED
    assert access.identify({}) is Verdict.REFUSED


def test_no_key_in_the_settings_is_no_empty_key() -> None:
    for given in ("", "None", "x"):
        assert AdminAccess().identify({KEY_HEADER: given}) is Verdict.REFUSED


def test_the_highest_role_of_a_token_counts_and_one_without_has_none() -> None:
    access = AdminAccess(KEY, tokens=read)
    assert access.identify(bearer("reader")) == Principal("r", "token", Role.READER)
    assert access.identify(bearer("both")) == Principal("b", "token", Role.ADMIN)
    assert access.identify({"authorization": "bearer none"}) == Principal("n", "token", None)
    for wrong in (bearer("wrong"), bearer(""), {"authorization": "Basic reader"}, bearer("x" * 20_000)):
        assert access.identify(wrong) is Verdict.REFUSED


def test_tokens_and_app_service_count_only_where_they_are_switched_on() -> None:
    access = AdminAccess(KEY)
    assert access.identify(bearer("reader")) is Verdict.REFUSED
    assert access.identify(principal(SIGNED_IN)) is Verdict.REFUSED


def test_a_wrong_key_is_not_made_good_by_another_proof() -> None:
    access = AdminAccess(KEY, tokens=read, app_service=True)
    assert access.identify({KEY_HEADER: "wrong", **bearer("both"), **principal(SIGNED_IN)}) is Verdict.REFUSED


def test_app_service_says_the_name_and_the_roles() -> None:
    access = AdminAccess(KEY, app_service=True)
    assert access.identify(principal(SIGNED_IN)) == Principal("Ada", "app-service", Role.OPERATOR)


@pytest.mark.parametrize(
    "document",
    [b"", b"\xff", b"[]", b"5", {"claims": 5}, {"claims": [5]}, {"claims": [{"typ": "name"}]}, {"claims": []},
     {"name_typ": None, "claims": [{"typ": "None", "val": ""}]}, b"[" * 10_000],
    ids=lambda value: str(value)[:30],
)  # fmt: skip
def test_what_app_service_would_not_say_is_refused(document: Any) -> None:
    assert AdminAccess(KEY, app_service=True).identify(principal(document)) is Verdict.REFUSED
    assert AdminAccess(KEY, app_service=True).identify({PRINCIPAL_HEADER: "é%"}) is Verdict.REFUSED


def test_while_tokens_cannot_be_judged_nothing_is_said_of_them() -> None:
    def away(_token: str) -> None:
        raise TokensUnavailableError("the keys cannot be had")

    with pytest.raises(TokensUnavailableError):
        AdminAccess(KEY, tokens=away).identify(bearer("x"))


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Everywhere:
    """All instances' refusals; away: the database cannot say."""

    def __init__(self) -> None:
        self.total = 0
        self.calls: list[int] = []
        self.away = False

    def add(self, count: int) -> int | None:
        if self.away:
            return None
        self.calls.append(count)
        self.total += count
        return self.total


def test_a_flood_of_guesses_is_written_once_a_second_and_loses_none() -> None:
    clock, everywhere = Clock(), Everywhere()
    access = AdminAccess(KEY, refusals=everywhere, clock=clock)
    for _ in range(100):
        access.identify({KEY_HEADER: "guess"})
    assert everywhere.calls == [1]
    clock.now += 1.0
    everywhere.away = True
    assert access.identify({KEY_HEADER: "guess"}) is Verdict.SLOWED
    clock.now += 1.0
    everywhere.away = False
    access.identify({KEY_HEADER: "guess"})
    assert everywhere.total == 102
    assert access.identify({KEY_HEADER: KEY}) == Principal("key 1", "key", Role.ADMIN)


def test_refusals_of_other_instances_slow_a_guesser_here_until_they_are_a_minute_old() -> None:
    clock, everywhere = Clock(), Everywhere()
    access = AdminAccess(KEY, refusals=everywhere, clock=clock)
    assert access.identify({KEY_HEADER: "guess"}) is Verdict.REFUSED
    everywhere.total = MOST_REFUSALS
    clock.now += 1.0
    assert access.identify({KEY_HEADER: "guess"}) is Verdict.SLOWED
    everywhere.total = 0
    clock.now += 61.0
    assert access.identify({KEY_HEADER: "guess"}) is Verdict.REFUSED


class Session:
    """The authority."""

    def request(self, _method: str, url: str, **_: Any) -> Any:
        public = jwt.algorithms.RSAAlgorithm.to_jwk(PRIVATE.public_key(), as_dict=True)
        document = {"jwks_uri": f"{AUTHORITY}/keys"} if "openid" in url else {"keys": [public | {"kid": "1"}]}
        return type("Answer", (), {"status_code": 200, "json": lambda _self: document})()


def token(key: Any = PRIVATE, kid: str = "1", algorithm: str = "RS256", **claims: Any) -> str:
    now = datetime.now(UTC)
    given = {
        "iss": f"{AUTHORITY}/{TENANT}/v2.0", "aud": AUDIENCE, "exp": now + timedelta(minutes=5), "nbf": now,
        "preferred_username": "ada@fleet.example", "roles": ["Operator"],
    } | claims  # fmt: skip
    kept = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(kept, key, algorithm, headers={"kid": kid})


def tokens() -> AccessTokens:
    session: Any = Session()
    return AccessTokens(
        SigningKeys(session, AUTHORITY), tenant_id=TENANT, audiences=(AUDIENCE, "client"), authority=AUTHORITY
    )


def test_entras_token_for_us_is_read_in_both_versions() -> None:
    assert tokens().read(token()) == ("ada@fleet.example", ("Operator",))
    old = token(iss=f"https://sts.windows.net/{TENANT}/", aud="client", preferred_username=None, appid="a1", roles=None)
    assert tokens().read(old) == ("a1", ())


@pytest.mark.parametrize(
    "given",
    [
        {"key": OTHER},
        {"kid": "2"},
        {"iss": f"{AUTHORITY}/other/v2.0"},
        {"aud": "api://else"},
        {"aud": None},
        {"exp": datetime.now(UTC) - timedelta(hours=1)},
        {"exp": None},
        {"nbf": datetime.now(UTC) + timedelta(hours=1)},
        {"preferred_username": None},
        {"key": "s" * 40, "algorithm": "HS256"},
    ],
    ids=lambda given: "-".join(given),
)
def test_any_other_token_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidTokenError):
        tokens().read(token(**given))


def test_tokens_of_keys_that_nobody_has_are_refused_and_counted_while_the_keys_are_fresh() -> None:
    reader = tokens()

    def read(given: str) -> tuple[str, Sequence[str]] | None:
        try:
            return reader.read(given)
        except InvalidTokenError:
            return None

    access = AdminAccess(KEY, tokens=read)
    found = [access.identify({"authorization": f"Bearer {token(kid=f'k{n}')}"}) for n in range(MOST_REFUSALS + 1)]
    assert found == [Verdict.REFUSED] * MOST_REFUSALS + [Verdict.SLOWED]
    assert isinstance(access.identify({"authorization": f"Bearer {token()}"}), Principal)


@pytest.mark.parametrize("text", ["", "x", "a.b.c", "é", jwt.encode({"aud": AUDIENCE}, "", "none")])
def test_what_is_no_token_is_refused(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        tokens().read(text)
