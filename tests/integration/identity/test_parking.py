"""Jobs whose identity gives no token wait, under one alert, and go on by themselves when it does again."""

from __future__ import annotations

from datetime import timedelta

import pytest

from shared import bootstrap
from shared.engine.errors import ParkedError, StoreUnavailableError
from shared.engine.job import Deferred, Settlement
from tests.integration.identity.conftest import DISPATCH, SERVICE, Product

MANY = 200
OPEN = (f"identity:{SERVICE}", "critical", True)
RESOLVED = (f"identity:{SERVICE}", "critical", False)


def test_two_hundred_jobs_wait_for_a_sign_in_and_are_then_sent_once_each(product: Product) -> None:
    product.post(MANY)
    assert product.work() == MANY
    assert product.states() == {"scheduled": MANY}
    assert product.value("select max(attempt) from queue.jobs") == 0
    assert product.value("select min(run_at) - clock_timestamp() from queue.later") > timedelta(minutes=9)
    assert product.alerts() == [OPEN]
    assert "./dev sign-in --account queue@fleet.example" in product.value(
        "select details ->> 'remedy' from queue.queue_alerts"
    )
    assert product.token_requests() == 0
    # Nobody has signed in: the watch sees that, and nothing is claimed meanwhile.
    bootstrap.identity_watch().run()
    assert product.work() == 0
    assert product.alerts() == [OPEN]

    assert product.sign_in() == SERVICE
    assert product.alerts() == [RESOLVED]
    product.work_until_empty()
    assert product.states() == {"completed": MANY}
    assert product.texts() == sorted(f"message {n};" for n in range(MANY))
    assert product.value("select count(*) from queue.dead_letter_queue") == 0
    assert product.value("select count(*) from queue.identity_wait") == 0


def test_the_watch_lets_jobs_go_on_when_somebody_signed_in_elsewhere(product: Product) -> None:
    product.sign_in()
    product.graph.control("POST", "revoke-sessions")
    product.post(3)
    product.work()
    assert product.alerts() == [OPEN]
    assert "AADSTS50173" in product.value("select details ->> 'reason' from queue.queue_alerts")
    other = product.spawn(SIGN_IN_ELSEWHERE)
    assert other.stdout is not None
    product.graph.approve(other.stdout.readline().split("enter the code ")[1].split()[0], SERVICE)
    out, err = other.communicate(timeout=30)
    assert other.returncode == 0, err
    assert "is signed in" in out
    bootstrap.identity_watch().run()
    product.work_until_empty()
    assert product.states() == {"completed": 3}
    assert product.alerts() == [RESOLVED]


SIGN_IN_ELSEWHERE = """
import sys
from functools import partial
from shared import bootstrap
from shared.engine.errors import ParkedError, StoreUnavailableError
from shared.engine.job import Deferred, Settlement
from shared.sign_in import main
bootstrap.identity_waits().mend = lambda identity: 0  # it dies before it can tell
sys.exit(main([], partial(print, flush=True)))
"""


def test_another_account_goes_on_while_one_waits(product: Product) -> None:
    product.sign_in(DISPATCH)
    product.post(2)
    product.work()
    assert bootstrap.teams_as(DISPATCH).own_account_id() is not None
    assert bootstrap.service_account_tokens(DISPATCH).token()
    bootstrap.identity_watch().run()
    assert product.alerts() == [OPEN]
    assert product.states() == {"scheduled": 2}


def test_an_expired_secret_parks_the_applications_jobs_under_one_alert_and_no_accounts(product: Product) -> None:
    product.sign_in()
    product.graph.control("POST", "app/secret", {"secret": "local-secret", "expired": True})
    product.graph.control("POST", "expire-tokens")
    product.post(5, "outlook-outbound")
    product.post(5)
    product.work("outlook-outbound")
    bootstrap.service_account_tokens(SERVICE)._cache.deserialize("{}")
    product.work()
    assert product.states() == {"scheduled": 5, "completed": 5}
    assert product.alerts() == [("identity:application", "critical", True)]
    assert "The secret has expired" in product.value("select details ->> 'remedy' from queue.queue_alerts")
    bootstrap.identity_watch().run()
    assert product.states() == {"scheduled": 5, "completed": 5}
    product.graph.control("POST", "app/secret", {"secret": "local-secret"})
    bootstrap.identity_watch().run()
    assert product.alerts() == [("identity:application", "critical", False)]
    product.work_until_empty("outlook-outbound")
    assert product.states() == {"completed": 10}
    assert len(product.graph.mailbox(DISPATCH, "sentitems")) == 5
    assert len(product.texts()) == 5


def test_a_lost_admin_consent_parks_and_a_refused_mailbox_does_not(product: Product) -> None:
    product.graph.add_fault("status", path="/messages$", status=403, times=2)
    product.post(1, "outlook-outbound")
    for _ in range(2):
        product.work("outlook-outbound")
    assert product.states().get("dead") == 1
    assert [key for key, *_ in product.alerts() if key.startswith("identity")] == []

    product.graph.control("POST", "app/consent", {"application": []})
    product.graph.control("POST", "expire-tokens")
    product.post(3, "outlook-outbound")
    product.work("outlook-outbound")
    assert product.states()["scheduled"] == 3
    assert [key for key, *_ in product.alerts() if key.startswith("identity")] == ["identity:application"]
    bootstrap.identity_watch().run()
    assert product.states()["scheduled"] == 3
    product.graph.control("POST", "app/consent", {"application": ["Mail.ReadWrite", "Mail.Send", "Chat.Read.All"]})
    bootstrap.identity_watch().run()
    product.work_until_empty("outlook-outbound")
    assert product.states()["completed"] == 3
    assert product.graph.violations() == []


def test_an_authority_that_is_away_parks_for_a_while_and_warns(product: Product) -> None:
    product.sign_in()
    product.graph.add_fault("status", path="/token$", status=503, times=2)
    product.post(1, "outlook-outbound")
    product.work("outlook-outbound")
    assert product.states() == {"scheduled": 1}
    assert product.alerts() == [("identity:application", "warning", True)]
    assert product.value("select min(run_at) - clock_timestamp() from queue.later") < timedelta(minutes=1)
    bootstrap.identity_watch().run()
    bootstrap.identity_watch().run()
    product.work_until_empty("outlook-outbound")
    assert product.states() == {"completed": 1}


def test_a_failure_heard_of_before_the_mending_opens_no_second_alert(
    product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shared.postgres.identity_waits.GRACE", timedelta(seconds=30))
    product.post(1)
    product.work()
    bootstrap.identity_waits().mend(SERVICE)
    product.post(1)
    product.work()
    assert product.alerts() == [RESOLVED]
    assert product.value("select max(run_at) - clock_timestamp() from queue.later") < timedelta(minutes=1)


def test_a_job_that_is_deferred_while_jobs_are_called_back_is_found_by_the_next_look(product: Product) -> None:
    product.sign_in()
    product.post(1)
    store, waits = bootstrap.store(), bootstrap.identity_waits()
    [job] = store.claim("teams-outbound", 1, "w", timedelta(minutes=1)).jobs
    pause = timedelta(minutes=10)
    waits.wait(job.id, ParkedError("x", needs=SERVICE, remedy="y", urgent=True, pause=pause))
    assert waits.mend(SERVICE) == 0
    store.settle([Settlement(job.id, job.lease_token, Deferred(pause))])
    bootstrap.identity_watch().run()
    assert product.value("select max(run_at) - clock_timestamp() from queue.later") < timedelta(minutes=1)
    assert product.value("select count(*) from queue.identity_wait") == 0


def test_a_database_that_is_away_does_not_hurt_a_job(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise StoreUnavailableError("away")

    product.post(1)
    bootstrap.identity_waits()
    monkeypatch.setattr("shared.postgres.identity_waits.PostgresIdentityWaits.wait", away)
    product.work()
    assert product.states() == {"scheduled": 1}
    assert product.value("select max(run_at) - clock_timestamp() from queue.later") < timedelta(minutes=2)


def test_a_disabled_account_is_told_and_goes_on_when_it_is_enabled(product: Product) -> None:
    product.sign_in()
    product.graph.control("POST", "expire-tokens")
    product.graph.control("POST", "refuse", {"subject": SERVICE, "code": 50057, "message": "The account is disabled."})
    product.post(1)
    product.work()
    assert product.alerts() == [OPEN]
    assert "enable it" in product.value("select details ->> 'remedy' from queue.queue_alerts")
    product.graph.control("POST", "refuse", {"subject": SERVICE})
    bootstrap.identity_watch().run()
    product.work_until_empty()
    assert product.states() == {"completed": 1}
