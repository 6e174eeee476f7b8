"""Subscriptions as Graph's answers show them, and what is never asked for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from shared.graph.client import GraphClient
from shared.graph.errors import AnswerLost
from shared.graph.rich import PublicCertificate
from shared.graph.subscriptions import NewSubscription, SubscriptionClient, lifetime

ANSWER = {
    "id": "s1",
    "resource": "users/u/messages",
    "changeType": "created",
    "notificationUrl": "https://app.example/api/webhooks/graph",
    "expirationDateTime": "2026-03-01T10:00:00Z",
}


@dataclass
class Answers:
    """Stands in for GraphClient: gives one answer, and keeps the bodies that it was called with."""

    answer: dict[str, Any]
    bodies: list[Any] = field(default_factory=list)

    def call(self, method: str, template: str, **more: Any) -> dict[str, Any]:
        self.bodies.append(more.get("body"))
        return self.answer

    def page(self, template: str, *, link: str | None = None) -> tuple[list[dict[str, Any]], str | None]:
        return [self.answer, {"id": "broken"}, ANSWER | {"id": "s2"}], link


def client(**changes: Any) -> tuple[SubscriptionClient, Answers]:
    answers = Answers(ANSWER | changes)
    return SubscriptionClient(cast(GraphClient, answers)), answers


def new(state: str = "nonce.mac") -> NewSubscription:
    expires_at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    return NewSubscription("users/u/messages", "created", "https://a/n", "https://a/l", state, expires_at)


@pytest.mark.parametrize(
    "text",
    ["2026-03-01T10:00:00.1234567Z", "2026-03-01T10:00:00.4Z", "2026-03-01T10:00:00+00:00", "2026-03-01T10:00:00"],
)
def test_an_expiry_is_read_with_any_number_of_digits_and_without_a_zone(text: str) -> None:
    graph, _ = client(expirationDateTime=text)
    assert graph.create(new()).expires_at.replace(microsecond=0) == datetime(2026, 3, 1, 10, tzinfo=UTC)


@pytest.mark.parametrize(
    "changes", [{"expirationDateTime": "soon"}, {"expirationDateTime": None}, {"expirationDateTime": 5}]
)
def test_an_answer_that_is_no_subscription_is_a_lost_answer(changes: dict[str, Any]) -> None:
    graph, _ = client(**changes)
    with pytest.raises(AnswerLost):
        graph.create(new())


def test_what_is_no_subscription_in_a_list_costs_none_of_the_others() -> None:
    graph, _ = client()
    found, link = graph.page("next")
    assert ([one.id for one in found], link) == (["s1", "s2"], "next")


@pytest.mark.parametrize("state", ["", "x" * 129])
def test_no_subscription_is_made_without_a_usable_client_state(state: str) -> None:
    graph, answers = client()
    with pytest.raises(ValueError, match="clientState"):
        graph.create(new(state))
    assert answers.bodies == []


def test_a_renewal_says_nothing_but_the_expiry_and_what_is_given() -> None:
    graph, answers = client()
    at = datetime(2026, 3, 1, 10, tzinfo=UTC)
    graph.update("s1", at)
    graph.update("s1", at, notification_url="https://b/n")
    assert answers.bodies == [
        {"expirationDateTime": "2026-03-01T10:00:00Z"},
        {"expirationDateTime": "2026-03-01T10:00:00Z", "notificationUrl": "https://b/n"},
    ]


def test_what_was_asked_for_counts_where_the_answer_says_it_otherwise_or_not_at_all() -> None:
    """Else what Graph leaves out, or spells in its own way, would be renewed or replaced again and again."""
    certificate = PublicCertificate("c1", "MII=")
    wanted = replace(new(), change_type="created,updated", certificate=certificate)
    graph, _ = client(changeType="Updated,Created", notificationUrl="https://A/n", encryptionCertificateId=None)
    made = graph.create(wanted)
    assert (made.change_type, made.notification_url, made.lifecycle_url) == (
        "created,updated",
        "https://a/n",
        "https://a/l",
    )
    assert (made.include_resource_data, made.certificate_id) == (True, "c1")
    assert graph.update("s1", wanted.expires_at, certificate=certificate).certificate_id == "c1"


@pytest.mark.parametrize(
    ("kind", "has_data", "minutes"),
    [("mail", False, 10_080), ("mail", True, 1_440), ("chat", True, 4_320), ("drive", False, 42_300)],
)
def test_a_little_less_than_the_longest_life_is_asked_for(kind: str, has_data: bool, minutes: int) -> None:
    assert timedelta() < timedelta(minutes=minutes) - lifetime(kind, has_data) < timedelta(minutes=10)
