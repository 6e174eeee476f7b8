"""Each channel, killed and cut off where it hurts: the user is told once, or the documented exception holds."""

from __future__ import annotations

import base64
import ipaddress
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal
from uuid import uuid4

import pytest

from local.fake_graph.hubs import HUB, KEY, KEY_NAME
from local.fake_graph.process import FakeGraph
from local.fake_graph.receivers import SECRET
from local.fake_graph.state import CLIENT, DRIVER, TENANT
from local.fake_graph.state import SECRET as CLIENT_SECRET
from shared.engine.errors import RejectedError
from shared.engine.job import Job
from shared.graph.activity import ActivityClient
from shared.graph.client import GraphClient
from shared.graph.credentials import Application, ClientSecret
from shared.graph.errors import AnswerLost
from shared.graph.session import GraphSession
from shared.graph.tokens import AppTokens
from shared.handlers.notification_channels import ActivityChannel, Channel, Notice, PushChannel, WebhookChannel
from shared.http_session import HttpSession
from shared.outgoing.addresses import PublicAddresses
from shared.outgoing.hubs import Hub, NotificationHub
from shared.outgoing.session import PublicSession
from shared.outgoing.webhooks import Endpoint, WebhookSender

NOTICE = Notice(DRIVER, "Gate 7 is free", "Until 18:30 ☕", "notification", "https://teams.microsoft.com/l/x", "fleet")
Kill = Literal["before", "after"]
PATHS = {"teams-activity": "sendActivityNotification", "push": "/hubs/", "webhook": "/receivers/"}


class Killed(BaseException):
    """The worker's process ends here."""


class Killable:
    """Makes a session die around its next request to a path that has `path` in it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.kill: Kill | None = None

    def wrap(self, session: HttpSession) -> HttpSession:
        request: Callable[..., Any] = session.request

        def killable(method: Any, url: Any, *args: Any, **kwargs: Any) -> Any:
            kill = self.kill if self._path in str(url) else None
            if kill == "before":
                raise Killed
            answer = request(method, url, *args, **kwargs)
            if kill == "after":
                raise Killed
            return answer

        session.request = killable  # type: ignore[method-assign]
        return session


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeGraph]:
    with FakeGraph(tmp_path_factory.mktemp("graph")) as graph:
        yield graph


@pytest.fixture
def graph(server: FakeGraph) -> FakeGraph:
    server.reset()
    return server


def channel(name: str, graph: FakeGraph, killable: Killable) -> Channel:
    ca_file = str(graph.ca_file)
    if name == "push":
        session = killable.wrap(HttpSession(ca_file=ca_file))
        return PushChannel(NotificationHub(session, Hub(f"{graph.base_url}/hubs", HUB, KEY_NAME, KEY)))
    if name == "webhook":
        public = PublicSession(PublicAddresses([ipaddress.ip_network("127.0.0.0/8")]), ca_file=ca_file)
        killable.wrap(public)
        address, key = f"{graph.base_url}/receivers/fleet", base64.b64decode(SECRET.removeprefix("whsec_"))
        return WebhookChannel(WebhookSender(public), {"fleet": Endpoint("fleet", address, (key,))})
    session = GraphSession(ca_file=ca_file)
    tokens = AppTokens(Application(TENANT, CLIENT, ClientSecret(CLIENT_SECRET), graph.authority), session)
    killable.wrap(session)
    return ActivityChannel(ActivityClient(GraphClient(session, tokens, graph.graph_url)))


def seen(name: str, graph: FakeGraph) -> list[Any]:
    """What a person, or the application behind the endpoint, has been told."""
    if name == "push":
        return list(dict.fromkeys(one["id"] for one in graph.control("GET", "push-notices")))
    if name == "webhook":
        return list(graph.control("GET", "received/fleet"))
    return graph.activity(DRIVER)


def new_job() -> Job:
    return Job(uuid4(), "notifications", "", 1, 3, uuid4(), enqueued_at=datetime.now(UTC))


@pytest.mark.parametrize("kill", ["before", "after"])
@pytest.mark.parametrize("name", PATHS)
def test_a_worker_that_is_killed_around_the_send_tells_the_user_once(name: str, kill: Kill, graph: FakeGraph) -> None:
    killable, job = Killable(PATHS[name]), new_job()
    one = channel(name, graph, killable)
    killable.kill = kill
    with pytest.raises(Killed):
        one.send(job, NOTICE)
    killable.kill = None
    one.send(job, NOTICE)
    assert len(seen(name, graph)) == 1
    assert graph.violations() == []


@pytest.mark.parametrize("name", PATHS)
def test_a_lost_answer_and_a_redrive_tell_the_user_once(name: str, graph: FakeGraph) -> None:
    job = new_job()
    one = channel(name, graph, Killable("nothing"))
    fault = {"match": {"path": PATHS[name]}, "times": 1, "fault": {"kind": "lose-answer"}}
    graph.control("POST", "faults", fault)
    with pytest.raises(AnswerLost):
        one.send(job, NOTICE)
    redriven = Job(uuid4(), "notifications", "", 1, 3, uuid4(), redrive_of=job.id)
    one.send(redriven, NOTICE)
    assert len(seen(name, graph)) == 1


@pytest.mark.parametrize("name", PATHS)
def test_two_jobs_are_two_notifications(name: str, graph: FakeGraph) -> None:
    one = channel(name, graph, Killable("nothing"))
    one.send(new_job(), NOTICE)
    one.send(new_job(), NOTICE)
    assert len(seen(name, graph)) == 2


def test_what_is_shown_is_what_was_said(graph: FakeGraph) -> None:
    channel("teams-activity", graph, Killable("nothing")).send(new_job(), NOTICE)
    [shown] = graph.activity(DRIVER)
    assert shown["topic"]["value"] == "Gate 7 is free" and shown["previewText"]["content"] == "Until 18:30 ☕"
    channel("webhook", graph, Killable("nothing")).send(new_job(), NOTICE)
    [event] = graph.control("GET", "received/fleet")
    assert event["data"]["userId"] == DRIVER and event["data"]["title"] == "Gate 7 is free"


@pytest.mark.parametrize("user", ["driver || $UserId:{everybody}", "Jürgen", "日本", "a b"])
def test_a_push_to_what_is_no_tag_is_refused_before_anything_is_sent(user: str, graph: FakeGraph) -> None:
    """The hub reads a tag as an expression, which could name other people's devices."""
    with pytest.raises(RejectedError, match="userIds"):
        channel("push", graph, Killable("/hubs/")).send(new_job(), replace(NOTICE, user_id=user))
    assert graph.requests() == []
