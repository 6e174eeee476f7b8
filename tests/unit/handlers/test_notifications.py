"""Notifications: what a payload must have, one job a user, and the next channel when one fails for good."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest

from shared.engine.context import Context
from shared.engine.errors import AuthError, PayloadError, RejectedError
from shared.engine.job import Attempt, Completed, ErrorClass, Job
from shared.graph.errors import AnswerLost, GraphError, GraphFailure, GraphUnreachable
from shared.handlers.loading import parse_payload
from shared.handlers.notification_channels import ChannelName, Notice, Route
from shared.handlers.notifications import Notification, Notifications

LINK = "https://teams.microsoft.com/l/chat/0/0"
TEXT = {"title": "Truck 7 is late", "userIds": ["alex"], "url": LINK}


class Recording:
    """A channel that keeps what it sent, or fails as it is told."""

    def __init__(self, failure: GraphFailure | RejectedError | None = None) -> None:
        self.failure = failure
        self.sent: list[tuple[UUID, Notice]] = []

    def send(self, job: Job, notice: Notice) -> dict[str, Any]:
        if self.failure is not None:
            raise self.failure
        self.sent.append((job.effect_id, notice))
        return {}


class Choices:
    def __init__(self, **routes: Route) -> None:
        self.routes = routes

    def of(self, user_id: str) -> Route | None:
        return self.routes.get(user_id)


def parse(**payload: Any) -> Notification:
    parsed = parse_payload("notifications", json.dumps(TEXT | payload))
    assert isinstance(parsed, Notification)
    return parsed


def run(
    payload: Notification, job: Job | None = None, routes: Choices | None = None, **channels: Recording
) -> Completed:
    named: dict[str, Recording] = {name.replace("_", "-"): channel for name, channel in channels.items()}
    handler = Notifications(named, routes or Choices(), ("teams-activity",))
    return handler(job or new_job(), payload, Context())


def new_job(*failures: ErrorClass) -> Job:
    now = datetime.now(UTC)
    attempts = tuple(
        Attempt(number, now, now, "w", "failed", failure, "", {}) for number, failure in enumerate(failures, 1)
    )
    return Job(uuid4(), "notifications", "", len(attempts) + 1, 3, uuid4(), attempts=attempts)


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"userIds": []}, "userIds is empty"),
        ({"userIds": [], "channel": "push", "endpoint": "fleet"}, "userIds is empty"),
        ({"title": ""}, "payload.title"),
        ({"title": "two\nlines"}, "payload.title"),
        ({"channel": "fax"}, "payload.channel"),
        ({"channel": ["push", "push"]}, "names a channel twice"),
        ({"channel": "push", "endpoint": "fleet"}, 'goes with the channel "webhook"'),
        ({"url": "http://fleet.example"}, "payload.url"),
        ({"url": "javascript:alert(1)"}, "payload.url"),
        ({"channel": "teams-activity", "url": None}, "payload.url: the channel teams-activity needs one"),
        ({"channel": ["push", "teams-activity"], "url": None}, "payload.url"),
        ({"data": {"x": "y" * 3000}}, "payload.data"),
        ({"type": "a b"}, "payload.type"),
        ({"userIds": [".."]}, "payload.userIds.0"),
    ],
)
def test_a_wrong_payload_is_refused_by_field(wrong: dict[str, Any], field: str) -> None:
    with pytest.raises(PayloadError, match=field):
        parse(**wrong)


def test_a_job_for_several_users_becomes_one_for_each_once() -> None:
    job, push = new_job(), Recording()
    done = run(parse(userIds=["a", "b", "a"], channel="push", data={"trip": 7}), job, push=push)
    assert push.sent == []
    assert [new.payload["userIds"] for new in done.follow_ups] == [["a"], ["b"]]
    assert len({new.idempotency_key for new in done.follow_ups}) == 2
    assert all(new.priority == job.priority and str(job.id) in str(new.idempotency_key) for new in done.follow_ups)
    again = parse_payload("notifications", json.dumps(done.follow_ups[0].payload))
    assert run(again, push=push).result == {"outcome": "sent", "channel": "push"}  # type: ignore[arg-type]
    assert push.sent[0][1].data == {"trip": 7}


def test_the_callers_choice_goes_before_the_users_and_the_users_before_the_default() -> None:
    routes = Choices(alex=Route(("push",)))
    channels = {"push": Recording(), "teams_activity": Recording(), "webhook": Recording()}
    assert (run(parse(), None, routes, **channels).result or {})["channel"] == "push"
    assert (run(parse(userIds=["kim"]), None, routes, **channels).result or {})["channel"] == "teams-activity"
    assert (run(parse(channel="teams-activity"), None, routes, **channels).result or {})["channel"] == "teams-activity"


def test_the_endpoint_is_the_users_own_unless_the_caller_names_one() -> None:
    routes, webhook = Choices(alex=Route(("webhook",), "depot")), Recording()
    run(parse(), None, routes, webhook=webhook)
    run(parse(channel="webhook", endpoint="fleet"), None, routes, webhook=webhook)
    run(parse(userIds=[], channel="webhook", endpoint="fleet"), None, routes, webhook=webhook)
    assert [(notice.user_id, notice.endpoint) for _, notice in webhook.sent] == [
        ("alex", "depot"), ("alex", "fleet"), (None, "fleet"),
    ]  # fmt: skip


def test_a_channel_that_refuses_for_good_hands_on_to_the_next() -> None:
    job = new_job()
    refusing = Recording(GraphError(404, ("NotFound",), "no app"))
    done = run(parse(channel=["teams-activity", "push"]), job, teams_activity=refusing, push=Recording())
    [left] = done.follow_ups
    assert done.result is not None and done.result["outcome"] == "failed-over" and "no app" in done.result["error"]
    assert left.payload["channel"] == ["push"] and left.payload["userIds"] == ["alex"]


def test_a_passing_failure_is_retried_on_its_own_channel_until_the_retries_are_used_up() -> None:
    payload, channel = parse(channel=["push", "webhook"]), Recording(GraphUnreachable("away"))
    for used in range(5):
        with pytest.raises(Exception, match="away"):
            run(payload, new_job(*[ErrorClass.NETWORK] * used), push=channel)
    done = run(payload, new_job(*[ErrorClass.NETWORK] * 5), push=channel)
    assert [new.payload["channel"] for new in done.follow_ups] == [["webhook"]]


def test_the_last_channels_failure_is_the_jobs() -> None:
    with pytest.raises(AuthError):
        run(parse(channel="push"), push=Recording(GraphError(401, (), "key")))
    with pytest.raises(RejectedError, match="OUTGOING"):
        run(parse(channel="webhook"), webhook=Recording(RejectedError("set OUTGOING_WEBHOOKS")))


def test_a_lost_answer_is_uncertain_and_repeats_with_the_same_identity() -> None:
    job, push = new_job(), Recording(AnswerLost("cut"))
    with pytest.raises(Exception, match="cut") as caught:
        run(parse(channel="push"), job, push=push)
    assert caught.value.error_class is ErrorClass.UNCERTAIN  # type: ignore[attr-defined]
    push.failure = None
    run(parse(channel="push"), replace(job, attempt=2), push=push)
    assert push.sent[0][0] == job.effect_id


def test_every_channel_of_the_payload_is_one_that_exists() -> None:
    names: list[ChannelName] = ["teams-activity", "push", "webhook"]
    assert parse(channel=names).channels == tuple(names)
