"""Bot, workflow and activity feed against the fake Graph: one visible effect at every crash point, or the exception."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import Any, Literal
from uuid import uuid4

import pytest

from local.fake_graph.state import CLIENT
from shared.engine.context import Context
from shared.engine.errors import JobCancelledError, LeaseLostError, ParkedError
from shared.engine.job import ErrorClass, Job
from shared.graph.activity import chain_id_of
from shared.graph.bot import BOT_SCOPES, BotClient, BotTokens
from shared.graph.client import GraphClient
from shared.graph.credentials import ClientSecret
from shared.graph.tokens import AppTokens
from shared.handlers.teams_inbound import is_own
from shared.handlers.teams_payload import TeamsMessage
from shared.handlers.teams_routes import Routes, parse_rules
from shared.logs import Redaction
from tests.integration.graph.conftest import CHANNEL, CHAT, DISPATCH, DRIVER, DRIVER_ID, SERVICE, TEAM, Killed, Wired

CARD: dict[str, Any] = {"type": "AdaptiveCard", "version": "1.5", "body": [{"type": "TextBlock", "text": "Tour 7 ✓"}]}
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WHEN = ("before", "after")
IN_CHANNEL = {"chatId": None, "teamId": TEAM, "channelId": CHANNEL}
HELLO: dict[str, Any] = {"content": '<p>Hello <at id="0">Alex</at></p>', "contentType": "html",
         "mentions": [{"id": 0, "userId": DRIVER_ID, "name": "Alex"}]}  # fmt: skip


def message(**more: Any) -> TeamsMessage:
    payload = {"chatId": CHAT, "content": "Tour 7 starts."} | more
    return TeamsMessage.model_validate({name: value for name, value in payload.items() if value is not None})


def by_bot(**more: Any) -> TeamsMessage:
    return message(sender="bot", **more)


def by_workflow(**more: Any) -> TeamsMessage:
    return message(**({"chatId": None, "workflow": "alerts"} | more))


def in_feed(**more: Any) -> TeamsMessage:
    return message(sender="activity", **more)


def posted(wired: Wired) -> list[dict[str, Any]]:
    return wired.graph.chat_messages(CHAT) + wired.graph.channel_messages(TEAM, CHANNEL)


class TestBot:
    def test_it_posts_to_a_chat_as_the_bot(self, wired: Wired) -> None:
        run = wired.run("teams-outbound", by_bot(content="Tour 7 <now>"))
        (seen,) = wired.graph.chat_messages(CHAT)
        assert seen["from"]["user"] is None
        assert seen["from"]["application"]["id"] == wired.bot.app_id
        assert seen["body"]["content"].endswith("</span>Tour 7 &lt;now&gt;")
        assert run.result is not None
        assert (run.result["sender"], run.result["message_id"]) == ("bot", seen["id"])
        record = wired.log.only
        assert (record.external_id, record.thread_id, record.sender) == (f"{CHAT}/{seen['id']}", CHAT, wired.bot.app_id)

    def test_a_thread_of_a_channel_and_a_reply_in_it(self, wired: Wired) -> None:
        root = wired.run("teams-outbound", by_bot(**IN_CHANNEL))
        assert root.result is not None
        wired.run("teams-outbound", by_bot(**IN_CHANNEL, replyToId=root.result["message_id"], content="Reply"))
        first, second = wired.graph.channel_messages(TEAM, CHANNEL)
        assert (first["replyToId"], second["replyToId"]) == (None, first["id"])
        assert {record.thread_id for record in wired.log.rows.values()} == {f"{CHANNEL}/{first['id']}"}

    def test_mentions_card_and_image(self, wired: Wired) -> None:
        image = {"contentId": "map", "contentType": "image/png", "contentBytes": PNG}
        text = HELLO["content"] + '<img src="cid:map">'
        wired.run("teams-outbound", by_bot(**HELLO | {"content": text}, card=CARD, images=[image]))
        (seen,) = wired.graph.chat_messages(CHAT)
        assert seen["mentions"][0]["mentioned"]["user"]["id"] == DRIVER_ID
        assert '<at id="0">Alex</at>' in seen["body"]["content"] and "cid:" not in seen["body"]["content"]
        card, picture = seen["attachments"]
        assert json.loads(card["content"])["body"][0] == CARD["body"][0]
        assert picture["contentUrl"] == f"data:image/png;base64,{PNG}"

    def test_somebody_who_is_not_there_cannot_be_mentioned(self, wired: Wired) -> None:
        mention = [{"id": 0, "userId": "cccccccc-0000-4000-8000-000000000009", "name": "Alex"}]
        run = wired.run("teams-outbound", by_bot(**HELLO | {"mentions": mention}))
        assert run.dead is not None and run.dead.failure.error_class is ErrorClass.VALIDATION
        assert 'mentions: the person of <at id="0"> is not in this chat' in run.dead.failure.message
        assert posted(wired) == []

    @pytest.mark.parametrize("where", [{}, IN_CHANNEL, {"card": CARD, "content": ""}], ids=["chat", "channel", "card"])
    @pytest.mark.parametrize("when", WHEN)
    def test_killed_at_the_post(self, wired: Wired, where: dict[str, Any], when: Literal["before", "after"]) -> None:
        wired.session.kill_at = (1, when)
        run = wired.run("teams-outbound", by_bot(**where))
        assert run.classes == [ErrorClass.WORKER_LOST]
        assert len(posted(wired)) == len(wired.log.rows) == 1

    @pytest.mark.parametrize("when", WHEN)
    @pytest.mark.parametrize("number", [1, 2])
    def test_killed_at_each_request_of_a_message_with_a_mention(
        self, wired: Wired, number: int, when: Literal["before", "after"]
    ) -> None:
        wired.session.kill_at = (number, when)
        wired.run("teams-outbound", by_bot(**HELLO))
        assert len(posted(wired)) == 1

    @pytest.mark.parametrize("when", WHEN)
    def test_killed_while_it_records(self, wired: Wired, when: Literal["before", "after"]) -> None:
        wired.log.kill = when
        wired.run("teams-outbound", by_bot())
        assert len(posted(wired)) == len(wired.log.rows) == 1

    @pytest.mark.parametrize("kind", ["lose-answer", "reset", "bad-json", "empty"])
    def test_a_lost_answer_is_read_back_as_the_application(self, wired: Wired, kind: str) -> None:
        fault: dict[str, Any] = {"status": 201} if kind in ("bad-json", "empty") else {}
        wired.graph.add_fault(kind, method="POST", path="/activities$", **fault)
        run = wired.run("teams-outbound", by_bot())
        assert run.classes == [ErrorClass.UNCERTAIN]
        assert len(posted(wired)) == 1
        assert run.result is not None and run.result["read_back"] is (kind == "lose-answer")

    def test_a_lost_answer_in_a_thread_is_read_back_there(self, wired: Wired) -> None:
        root = wired.run("teams-outbound", by_bot(**IN_CHANNEL))
        assert root.result is not None
        wired.graph.add_fault("lose-answer", method="POST", path="/activities$")
        run = wired.run("teams-outbound", by_bot(**IN_CHANNEL, replyToId=root.result["message_id"]))
        assert run.result is not None and run.result["read_back"] is True
        assert len(posted(wired)) == 2

    def test_where_teams_keeps_no_mark_the_text_tells(self, wired: Wired) -> None:
        wired.graph.control("POST", "bot", {"losesMarkup": True})
        wired.graph.add_fault("lose-answer", method="POST", path="/activities$")
        wired.graph.arrive_chat_message(DRIVER_ID, "Tour 7 starts.", chat=CHAT)
        run = wired.run("teams-outbound", by_bot())
        assert run.result is not None and run.result["read_back"] is True
        assert len(posted(wired)) == 2

    def test_an_equal_text_with_another_jobs_mark_is_not_ours(self, wired: Wired) -> None:
        wired.run("teams-outbound", by_bot())
        wired.session.kill_at = (wired.session.number + 1, "before")
        wired.run("teams-outbound", by_bot())
        assert len(posted(wired)) == 2

    def test_a_bot_that_is_not_installed_is_told_by_the_connectors_code(self, wired: Wired) -> None:
        wired.graph.control("POST", "bot", {"missingIn": [CHAT]})
        run = wired.run("teams-outbound", by_bot())
        assert run.dead is not None and run.dead.failure.error_class is ErrorClass.AUTH
        assert "the Bot Framework answered 403 BotNotInConversationRoster" in run.dead.failure.message

    def test_429_waits_as_long_as_the_connector_says(self, wired: Wired) -> None:
        wired.graph.add_fault("status", path="/activities$", status=429, headers={"Retry-After": "3"})
        run = wired.run("teams-outbound", by_bot())
        assert run.classes == [ErrorClass.RATE_LIMIT]
        assert run.delays[0].total_seconds() >= 3

    @pytest.mark.parametrize(("status", "kind"), [(412, ErrorClass.NETWORK), (502, ErrorClass.UNCERTAIN)])
    def test_what_the_connector_says_to_repeat_is_repeated(self, wired: Wired, status: int, kind: ErrorClass) -> None:
        wired.graph.add_fault("status", path="/activities$", status=status)
        run = wired.run("teams-outbound", by_bot())
        assert run.classes == [kind]
        assert len(posted(wired)) == 1

    @pytest.mark.parametrize(("own", "setting"), [(True, "TEAMS_BOT_CLIENT_SECRET"), (False, "GRAPH_CLIENT_SECRET")])
    def test_a_bot_without_a_token_parks_its_jobs_under_its_own_name(
        self, wired: Wired, own: bool, setting: str
    ) -> None:
        wrong = AppTokens(replace(wired.application, credential=ClientSecret("no")), wired.session, scopes=BOT_SCOPES)
        tokens = BotTokens(wrong, own_application=own)
        wired.bot = BotClient(GraphClient(wired.session, tokens, wired.graph.bot_url, "the Bot Framework"), CLIENT)
        with pytest.raises(ParkedError) as parked:
            wired.handler("teams-outbound")(Job(uuid4(), "teams-outbound", "", 1, 5, uuid4()), by_bot(), Context())
        assert (parked.value.needs, parked.value.urgent) == ("bot", True)
        assert setting in parked.value.remedy and str(parked.value).startswith("The bot: ")

    def test_an_old_token_is_replaced_once(self, wired: Wired) -> None:
        wired.run("teams-outbound", by_bot())
        wired.graph.control("POST", "expire-tokens")
        run = wired.run("teams-outbound", by_bot(content="again"))
        assert run.attempts == []
        assert [call["status"] for call in run.details["graph_calls"]] == [401, 201]


class TestWorkflow:
    def test_the_text_becomes_a_card_in_front_of_the_given_one(self, wired: Wired) -> None:
        run = wired.run("teams-outbound", by_workflow(content="*Tour* 7\n\nnow", card=CARD))
        (seen,) = wired.graph.channel_messages(TEAM, CHANNEL)
        body = json.loads(seen["attachments"][0]["content"])["body"]
        assert [row["inlines"][0]["text"] for row in body[:3]] == ["*Tour* 7", " ", "now"]
        assert body[3] == CARD["body"][0]
        assert is_own(seen, ()), "its notification would come back as a message of somebody else's"
        assert run.details["workflow_run"]
        assert wired.log.only.external_id == f"workflow/{run.job.effect_id}"

    def test_a_worker_killed_before_the_start_is_prepared_starts_it_once(self, wired: Wired) -> None:
        wired.workflows = _Killed(wired)  # type: ignore[assignment]
        run = wired.run("teams-outbound", by_workflow())
        assert run.classes == [ErrorClass.WORKER_LOST]
        assert len(posted(wired)) == 1

    @pytest.mark.parametrize(("when", "sent"), [("before", 0), ("after", 1)])
    def test_killed_at_the_post_it_is_left_to_a_person(
        self, wired: Wired, when: Literal["before", "after"], sent: int
    ) -> None:
        wired.session.kill_at = (1, when)
        run = wired.run("teams-outbound", by_workflow())
        assert run.dead is not None and run.dead.failure.error_class is ErrorClass.UNCERTAIN
        assert "redrive the job if it is not there" in run.dead.failure.message
        assert len(posted(wired)) == sent
        assert len(wired.sent("POST", "/invoke")) == sent

    @pytest.mark.parametrize("when", WHEN)
    def test_killed_while_it_records_it_is_left_to_a_person(
        self, wired: Wired, when: Literal["before", "after"]
    ) -> None:
        wired.log.kill = when
        run = wired.run("teams-outbound", by_workflow())
        assert run.dead is not None and run.dead.failure.error_class is ErrorClass.UNCERTAIN
        assert len(posted(wired)) == 1

    def test_a_lost_answer_is_left_to_a_person_and_a_redrive_sends_again(self, wired: Wired) -> None:
        wired.graph.add_fault("lose-answer", path="/invoke$")
        dead = wired.run("teams-outbound", by_workflow())
        assert dead.dead is not None and dead.dead.failure.error_class is ErrorClass.UNCERTAIN
        assert len(dead.classes) == 1, "after the lost answer one attempt, which asks a person"
        assert len(posted(wired)) == 1
        again = wired.run("teams-outbound", by_workflow(), redrive_of=dead.job)
        assert again.result is not None
        assert len(posted(wired)) == 2

    def test_or_it_is_sent_again_where_the_settings_say_so(self, wired: Wired) -> None:
        wired.teams_routes = Routes(resend_lost=True)
        wired.graph.add_fault("lose-answer", path="/invoke$")
        run = wired.run("teams-outbound", by_workflow())
        assert run.classes == [ErrorClass.UNCERTAIN]
        assert len(posted(wired)) == 2

    @pytest.mark.parametrize(
        ("text", "kind"), [("413", ErrorClass.VALIDATION), ("429", ErrorClass.RATE_LIMIT), ("403", ErrorClass.AUTH)]
    )
    def test_an_error_text_under_a_good_status_is_the_error_that_it_names(
        self, wired: Wired, text: str, kind: ErrorClass
    ) -> None:
        body = f"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error {text} with"
        wired.graph.add_fault("status", path="/invoke$", status=200, body=body, times=9)
        run = wired.run("teams-outbound", by_workflow())
        assert run.dead is not None and run.dead.failure.error_class is kind
        assert posted(wired) == []

    @pytest.mark.parametrize(("status", "body"), [(200, "1"), (202, "failed"), (200, ""), (302, "")])
    def test_any_other_answer_is_no_success(self, wired: Wired, status: int, body: str) -> None:
        wired.graph.add_fault("html", path="/invoke$", status=status, body=body or " ")
        run = wired.run("teams-outbound", by_workflow())
        assert run.dead is not None and run.dead.failure.error_class is ErrorClass.UNCERTAIN

    def test_429_and_a_signature_that_is_refused(self, wired: Wired) -> None:
        wired.graph.add_fault("status", path="/invoke$", status=429, headers={"Retry-After": "4"})
        run = wired.run("teams-outbound", by_workflow())
        assert run.classes == [ErrorClass.RATE_LIMIT] and run.delays[0].total_seconds() >= 4
        wired.workflows._addresses["alerts"] += "x"
        run = wired.run("teams-outbound", by_workflow())
        assert run.dead is not None and run.dead.failure.error_class is ErrorClass.AUTH

    def test_the_signed_address_is_in_no_error_and_no_log(self, wired: Wired, caplog: pytest.LogCaptureFixture) -> None:
        signature, redaction = wired.graph.alerts_workflow.split("sig=")[1], Redaction()
        with caplog.at_level(logging.DEBUG):
            for kind in ("reset", "lose-answer", "html"):
                wired.graph.add_fault(kind, path="/invoke$")
                run = wired.run("teams-outbound", by_workflow())
                told = [run.dead.failure.message if run.dead else "", str(run.details), str(run.attempts)]
                assert signature not in "".join([*told, repr(wired.workflows)])
        lines = [record.getMessage() for record in caplog.records]
        assert any("/invoke" in line for line in lines)
        assert not any(signature in redaction.clean(line) for line in lines)

    def test_a_workflow_that_nobody_has_set_up_is_refused(self, wired: Wired) -> None:
        wired.teams_routes = Routes()
        run = wired.run("teams-outbound", by_workflow(workflow="none"))
        assert run.dead is not None and "add it to TEAMS_WORKFLOWS" in run.dead.failure.message


class TestActivityFeed:
    @pytest.mark.parametrize(
        "place", [{}, {"chatId": None, "teamId": TEAM}, IN_CHANNEL], ids=["chat", "team", "channel"]
    )
    def test_everybody_there_is_told(self, wired: Wired, place: dict[str, Any]) -> None:
        run = wired.run("teams-outbound", in_feed(**place, content="Tour 7 moved.\nNow at 14:00"))
        for user in (DISPATCH, DRIVER, SERVICE):
            (seen,) = wired.graph.activity(user)
            assert seen["chainId"] == chain_id_of(run.job.effect_id)
            assert seen["templateParameters"] == [{"name": "systemDefaultText", "value": "Tour 7 moved."}]
            assert seen["previewText"]["content"] == "Tour 7 moved.\nNow at 14:00"
        assert posted(wired) == []
        assert wired.log.only.external_id == f"activity/{run.job.effect_id}"

    @pytest.mark.parametrize("people", [[DRIVER_ID], [DRIVER_ID, "aaaaaaaa-0000-4000-8000-000000000001"]])
    def test_people_are_told_by_one_request(self, wired: Wired, people: list[str]) -> None:
        topic = {"value": "Tour 7", "webUrl": "https://teams.microsoft.com/l/entity/app/tours"}
        wired.run("teams-outbound", message(chatId=None, userIds=people, topic=topic))
        (seen,) = wired.graph.activity(DRIVER)
        assert seen["topic"] == {"source": "text", **topic}
        assert len([r for r in wired.graph.requests() if "sendActivityNotification" in r["path"]]) == 1
        assert len(wired.graph.activity(DISPATCH)) == len(people) - 1

    @pytest.mark.parametrize("when", WHEN)
    def test_killed_at_the_request_everybody_sees_it_once(self, wired: Wired, when: Literal["before", "after"]) -> None:
        wired.session.kill_at = (1, when)
        wired.run("teams-outbound", in_feed())
        (seen,) = wired.graph.activity(DRIVER)
        assert seen["times"] == (2 if when == "after" else 1)

    @pytest.mark.parametrize("when", WHEN)
    def test_killed_while_it_records_everybody_sees_it_once(
        self, wired: Wired, when: Literal["before", "after"]
    ) -> None:
        wired.log.kill = when
        wired.run("teams-outbound", in_feed())
        assert len(wired.graph.activity(DRIVER)) == len(wired.log.rows) == 1

    def test_a_lost_answer_is_sent_again_in_its_place(self, wired: Wired) -> None:
        wired.graph.add_fault("lose-answer", path="sendActivityNotification$")
        run = wired.run("teams-outbound", in_feed())
        assert run.classes == [ErrorClass.NETWORK]
        assert [seen["times"] for seen in wired.graph.activity(DRIVER)] == [2]

    def test_two_jobs_are_two_notifications(self, wired: Wired) -> None:
        wired.run("teams-outbound", in_feed())
        wired.run("teams-outbound", in_feed())
        assert len(wired.graph.activity(DRIVER)) == 2

    def test_429_waits_as_long_as_graph_says(self, wired: Wired) -> None:
        wired.graph.add_fault("status", path="sendActivityNotification$", status=429, headers={"Retry-After": "5"})
        run = wired.run("teams-outbound", in_feed())
        assert run.classes == [ErrorClass.RATE_LIMIT] and run.delays[0].total_seconds() >= 5


ALL = [message(), by_bot(), by_workflow(), in_feed()]


@pytest.mark.parametrize("payload", ALL, ids=["account", "bot", "workflow", "activity"])
@pytest.mark.parametrize(("event", "raised"), [("lease_lost", LeaseLostError), ("stop_requested", JobCancelledError)])
def test_a_worker_that_has_lost_its_job_sends_nothing(
    wired: Wired, payload: TeamsMessage, event: str, raised: type[Exception]
) -> None:
    context = Context()
    getattr(context, event).set()
    with pytest.raises(raised):
        wired.handler("teams-outbound")(Job(uuid4(), "teams-outbound", "", 1, 5, uuid4()), payload, context)
    assert wired.session.number == 0
    assert posted(wired) == wired.graph.activity(DRIVER) == []


@pytest.mark.parametrize("payload", ALL[:2], ids=["account", "bot"])
@pytest.mark.parametrize("when", WHEN)
def test_killed_after_the_post_and_again_at_the_read_back(
    wired: Wired, payload: TeamsMessage, when: Literal["before", "after"]
) -> None:
    kills = iter([(2, when)])

    def kill_again() -> None:
        wired.session.kill_at = next(kills, None)

    wired.session.kill_at = (1, "after")
    run = wired.run("teams-outbound", payload, between=kill_again)
    assert run.classes == [ErrorClass.WORKER_LOST] * 2
    assert len(posted(wired)) == len(wired.log.rows) == 1


@pytest.mark.parametrize("payload", ALL[:2], ids=["account", "bot"])
@pytest.mark.parametrize("status", [400, 403, 404])
def test_what_cannot_be_read_back_is_left_to_a_person(wired: Wired, payload: TeamsMessage, status: int) -> None:
    wired.graph.add_fault("lose-answer", method="POST", path="/(activities|messages)$")
    wired.graph.add_fault("status", method="GET", path="/messages$", status=status, times=9)
    run = wired.run("teams-outbound", payload)
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.UNCERTAIN
    assert "cannot be read back" in run.dead.failure.message
    assert len(posted(wired)) == 1


def test_a_bots_answer_that_comes_too_late_is_read_back(wired: Wired) -> None:
    wired.graph.add_fault("delay", path="/activities$", seconds=4)
    run = wired.run("teams-outbound", by_bot())
    assert run.classes == [ErrorClass.UNCERTAIN]
    assert run.result is not None and run.result["read_back"] is True
    assert len(posted(wired)) == 1


def test_the_rules_choose_the_sender_by_target_and_the_payload_comes_first(wired: Wired) -> None:
    rules = parse_rules(f'{{"{CHAT}": "bot", "{TEAM}/*": "workflow:alerts"}}')
    wired.teams_routes = Routes(rules, frozenset({"alerts"}), (SERVICE,))
    for payload in (message(), message(sender="account"), message(sendAs=SERVICE), message(**IN_CHANNEL)):
        wired.run("teams-outbound", payload)
    bot, *accounts = wired.graph.chat_messages(CHAT)
    assert bot["from"]["application"]["id"] == wired.bot.app_id
    assert [one["from"]["user"]["displayName"] for one in accounts] == ["Fleet Queue", "Fleet Queue"]
    (workflow,) = wired.graph.channel_messages(TEAM, CHANNEL)
    assert workflow["from"]["application"]["displayName"] == "Workflows"


def test_a_rule_that_changed_to_a_sender_that_cannot_carry_it_is_refused_before_anything_is_sent(wired: Wired) -> None:
    wired.teams_routes = Routes(parse_rules('{"*": "bot"}'))
    run = wired.run("teams-outbound", message(importance="urgent"))
    assert run.dead is not None and run.dead.failure.error_class is ErrorClass.VALIDATION
    assert "importance: a bot's messages have none" in run.dead.failure.message
    assert wired.session.number == 0


class _Killed:
    """A workflow client whose process is killed once, before anything is prepared."""

    def __init__(self, wired: Wired) -> None:
        self._wired, self._workflows = wired, wired.workflows

    def has(self, name: str) -> bool:
        self._wired.workflows = self._workflows
        raise Killed
