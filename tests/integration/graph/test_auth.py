"""Tokens from the fake authority: fetched once, replaced when refused, shared between workers."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest

from local.process import wait_until
from shared.graph.credentials import ClientSecret
from shared.graph.delegated_tokens import DelegatedTokens
from shared.graph.errors import SignInRequired, TokenRefused, TokenUnavailable
from shared.graph.session import GraphSession
from shared.graph.token_cache import CacheCipher
from shared.graph.tokens import AppTokens
from shared.sealing import KeyRing
from tests.integration.graph.conftest import DRIVER, KEY, SERVICE, MemoryStore, Wired, sign_in_service


def token_requests(wired: Wired) -> int:
    return len(wired.sent("POST", "/oauth2/v2.0/token"))


def worker(wired: Wired, store: MemoryStore | None = None, key: bytes = KEY) -> DelegatedTokens:
    """The tokens of another process."""
    return DelegatedTokens(
        wired.application, wired.session, account=SERVICE, store=store or wired.store, cipher=CacheCipher(KeyRing(key))
    )


def test_sixteen_threads_share_one_token_request(wired: Wired) -> None:
    before = token_requests(wired)
    barrier = threading.Barrier(16)

    def fetch(_: int) -> str:
        barrier.wait(10)
        return wired.app_tokens.token()

    with ThreadPoolExecutor(16) as pool:
        assert len(set(pool.map(fetch, range(16)))) == 1
    assert token_requests(wired) == before + 1


def test_a_refused_token_is_replaced_once_for_all_threads(wired: Wired) -> None:
    old = wired.app_tokens.token()
    before = token_requests(wired)
    with ThreadPoolExecutor(8) as pool:
        new = set(pool.map(lambda _: wired.app_tokens.token(refused=old), range(8)))
    assert len(new) == 1
    assert old not in new
    assert token_requests(wired) == before + 1


def test_a_token_is_replaced_before_its_hour_is_over(wired: Wired) -> None:
    now = [0.0]
    tokens = AppTokens(wired.application, wired.session, clock=lambda: now[0])
    first = tokens.token()
    now[0] = 3200.0
    assert tokens.token() == first
    now[0] = 3400.0
    tokens.token()
    assert tokens._held is not None and tokens._held.renew_at > 3400


def test_a_token_is_renewed_ahead_by_one_thread_while_the_others_use_the_old_one(wired: Wired) -> None:
    now = [0.0]
    tokens = AppTokens(wired.application, wired.session, clock=lambda: now[0])
    first = tokens.token()
    now[0] = 3400.0
    before = token_requests(wired)
    wired.graph.add_fault("delay", path="/token$", seconds=1.5)
    with ThreadPoolExecutor(8) as pool:
        renewing = pool.submit(tokens.token)
        assert wait_until(lambda: token_requests(wired) == before + 1, 10)
        started = time.monotonic()
        assert {future.result() for future in [pool.submit(tokens.token) for _ in range(7)]} == {first}
        assert time.monotonic() - started < 1.3
        assert renewing.result() != first
    assert tokens.token() == renewing.result()
    assert token_requests(wired) == before + 1


def test_renewing_ahead_that_fails_leaves_the_old_token_until_its_end(wired: Wired) -> None:
    now = [0.0]
    tokens = AppTokens(wired.application, wired.session, clock=lambda: now[0])
    first = tokens.token()
    now[0] = 3400.0
    wired.graph.add_fault("status", path="/token$", status=503, times=2)
    assert tokens.token() == first
    assert tokens.token() == first  # not asked again at once
    now[0] = 3440.0
    assert tokens.token() == first
    now[0] = 3480.0
    assert tokens.token() != first


def test_a_failure_is_asked_again_and_not_answered_from_memory(wired: Wired) -> None:
    tokens = AppTokens(wired.application, wired.session)
    wired.graph.add_fault("status", path="/token$", status=503)
    with pytest.raises(TokenUnavailable):
        tokens.token()
    assert tokens.token()


def test_a_throttled_authority_is_left_alone_until_its_retry_after(wired: Wired) -> None:
    now = [0.0]
    tokens = AppTokens(wired.application, wired.session, clock=lambda: now[0])
    wired.graph.add_fault("status", path="/token$", status=429, headers={"Retry-After": "7"})
    with pytest.raises(TokenUnavailable) as caught:
        tokens.token()
    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == 7
    before = token_requests(wired)
    with pytest.raises(TokenUnavailable):
        tokens.token()
    assert token_requests(wired) == before
    now[0] = 8.0
    assert tokens.token()


def test_a_wrong_secret_is_told_with_its_remedy_and_not_hammered(wired: Wired) -> None:
    now = [0.0]
    wrong = replace(wired.application, credential=ClientSecret("wrong-secret-value"))
    tokens = AppTokens(wrong, wired.session, clock=lambda: now[0])
    with pytest.raises(TokenRefused, match="GRAPH_CLIENT_SECRET") as caught:
        tokens.token()
    assert caught.value.codes == (7000215,)
    assert "wrong-secret-value" not in str(caught.value)
    before = token_requests(wired)
    for _ in range(20):
        with pytest.raises(TokenRefused):
            tokens.token()
    assert token_requests(wired) == before
    now[0] = 6.0
    with pytest.raises(TokenRefused):
        tokens.token()
    assert token_requests(wired) == before + 1


def test_an_expired_secret_is_told_and_work_goes_on_by_itself_when_the_authority_takes_it_again(wired: Wired) -> None:
    now = [0.0]
    tokens = AppTokens(wired.application, wired.session, clock=lambda: now[0])
    refusal = {
        "error": "invalid_client",
        "error_description": "AADSTS7000222: The provided client secret keys are expired.",
        "error_codes": [7000222],
    }
    wired.graph.add_fault("status", path="/token$", status=401, body=json.dumps(refusal), times=3)
    for _ in range(3):
        with pytest.raises(TokenRefused, match="expired: make a new one"):
            tokens.token()
        now[0] += 6.0
    assert tokens.token()


def test_an_unknown_tenant_is_told_with_its_remedy(wired: Wired) -> None:
    tokens = AppTokens(replace(wired.application, tenant_id="nowhere"), wired.session)
    with pytest.raises(TokenRefused, match="GRAPH_TENANT_ID"):
        tokens.token()


def test_an_authority_that_cannot_be_reached_is_a_passing_failure(wired: Wired) -> None:
    with GraphSession() as session:
        tokens = AppTokens(replace(wired.application, authority="https://127.0.0.1:9"), session)
        with pytest.raises(TokenUnavailable):
            tokens.token()


def test_an_authority_that_does_not_answer_ends_in_time(wired: Wired) -> None:
    tokens = AppTokens(wired.application, wired.session)
    wired.graph.add_fault("delay", path="/token$", seconds=4)
    started = time.monotonic()
    with pytest.raises(TokenUnavailable):
        tokens.token()
    assert time.monotonic() - started < 3.5
    assert tokens.token()


def test_a_thread_that_never_ends_its_request_holds_the_others_for_so_long_only(
    wired: Wired, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that the host has given up."""
    monkeypatch.setattr("shared.graph.tokens.WAIT_SECONDS", 0.2)
    tokens, waiting, released = AppTokens(wired.application, wired.session), threading.Event(), threading.Event()

    def hang(*, fresh: bool, claims: str | None) -> dict[str, Any]:
        waiting.set()
        released.wait(30)
        raise TokenUnavailable("released")

    monkeypatch.setattr(tokens, "_acquire", hang)
    with ThreadPoolExecutor(2) as pool:
        try:
            hanging = pool.submit(tokens.token)
            assert waiting.wait(10)
            with pytest.raises(TokenUnavailable, match="another thread"):
                pool.submit(tokens.token).result(10)
        finally:
            released.set()
        with pytest.raises(TokenUnavailable, match="released"):
            hanging.result(10)
    monkeypatch.undo()
    assert tokens.token()


def test_the_sign_in_is_used_by_another_worker(wired: Wired) -> None:
    assert worker(wired).token()
    assert worker(wired).user_id() == "aaaaaaaa-0000-4000-8000-000000000003"


def test_a_refresh_is_saved_and_a_second_worker_does_not_overwrite_a_newer_one(wired: Wired) -> None:
    one, two = worker(wired), worker(wired)
    old = one.token()
    two.token()
    version = wired.store.caches[SERVICE].version
    one.token(refused=old)
    assert wired.store.caches[SERVICE].version == version + 1
    # The second worker loads the same version, and the first saves while it is still asking.
    loaded = wired.store.load(SERVICE)
    assert loaded is not None
    assert not wired.store.save(SERVICE, loaded.sealed, version)
    assert two.token(refused=two.token())


def test_two_workers_that_refresh_at_once_both_get_a_token(wired: Wired) -> None:
    workers = [worker(wired) for _ in range(4)]
    refused = [w.token() for w in workers]
    with ThreadPoolExecutor(4) as pool:
        tokens = list(pool.map(lambda pair: pair[0].token(refused=pair[1]), zip(workers, refused, strict=True)))
    assert len(tokens) == 4
    assert worker(wired).token()


def test_a_revoked_sign_in_names_the_command(wired: Wired) -> None:
    tokens = worker(wired)
    old = tokens.token()
    wired.graph.add_fault("status", path="/token$", status=400, body='{"error":"invalid_grant","error_codes":[50173]}')
    with pytest.raises(SignInRequired, match=r"Run `\./dev sign-in --account queue@fleet\.example`"):
        tokens.token(refused=old)


def test_nobody_signed_in_is_told_before_any_request(wired: Wired) -> None:
    before = token_requests(wired)
    with pytest.raises(SignInRequired, match="nobody has signed in"):
        worker(wired, MemoryStore()).token()
    assert token_requests(wired) == before


def test_a_cache_of_another_key_asks_for_a_new_sign_in(wired: Wired) -> None:
    with pytest.raises(SignInRequired, match="not among the settings"):
        worker(wired, key=b"x" * 32).token()


def test_somebody_else_signing_in_is_refused_and_not_kept(wired: Wired, cipher: CacheCipher) -> None:
    store = MemoryStore()
    with pytest.raises(TokenRefused, match=r"Sign in as queue@fleet\.example"):
        sign_in_service(wired.graph, wired.session, wired.application, store, cipher, user=DRIVER)
    assert store.caches == {}


def test_the_stored_cache_shows_no_token(wired: Wired) -> None:
    tokens = worker(wired)
    token = tokens.token()
    assert token.encode() not in wired.store.caches[SERVICE].sealed.ciphertext
    assert b"refresh" not in wired.store.caches[SERVICE].sealed.ciphertext
