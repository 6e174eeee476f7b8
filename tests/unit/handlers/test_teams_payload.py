"""What a Teams message may be, sender by sender: refusals name the field and a way out, and never the value."""

from __future__ import annotations

import base64
import json
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.errors import PayloadError
from shared.handlers.loading import parse_payload
from shared.handlers.registry import QUEUES
from shared.handlers.teams_bodies import account_message, bot_activity, workflow_message
from shared.handlers.teams_html import clean, has_content
from shared.handlers.teams_limits import BOT_BYTES, MESSAGE_BYTES, route_of
from shared.handlers.teams_payload import IMAGES_BYTES, TeamsMessage
from shared.handlers.teams_routes import Route, Routes, parse_rules

ID = UUID("0190c8a4-0000-7000-8000-000000000001")
CHAT: dict[str, Any] = {"chatId": "19:a@thread.v2", "content": "hello"}
CHANNEL: dict[str, Any] = {"teamId": "t", "channelId": "19:c@thread.tacv2", "content": "hello"}
PNG = b"\x89PNG\r\n\x1a\n"
ROUTES = Routes(
    parse_rules('{"19:BOT@*": "bot", "t/19:flow*": "workflow:alerts", "19:b@*": "account:b@x.example"}'),
    frozenset({"alerts"}),
    ("a@x.example", "B@x.example"),
)


def parse(payload: dict[str, Any], routes: Routes = ROUTES) -> TeamsMessage:
    parsed = parse_payload("teams-outbound", json.dumps(payload), {"teams_routes": lambda: routes})
    assert isinstance(parsed, TeamsMessage)
    return parsed


def refusal(payload: dict[str, Any], routes: Routes = ROUTES) -> str:
    with pytest.raises(PayloadError) as caught:
        parse(payload, routes)
    return str(caught.value)


def image(content: bytes = PNG, kind: str = "image/png", name: str = "map") -> dict[str, Any]:
    return {"contentId": name, "contentType": kind, "contentBytes": base64.b64encode(content).decode()}


def mention(kind: str = "user") -> dict[str, Any]:
    person = {"userId": "u"} if kind == "user" else {"kind": kind}
    return {"content": '<at id="0">A</at>', "contentType": "html", "mentions": [{"id": 0, "name": "A", **person}]}


FILE = {"id": "4dcc1a8b", "name": "tour.pdf", "contentUrl": "https://x.example/tour.pdf"}
CARD = {"type": "AdaptiveCard", "version": "1.5"}


class TestChoice:
    @pytest.mark.parametrize(
        ("payload", "route"),
        [
            (CHAT, Route("account")),
            (CHAT | {"chatId": "19:bot@thread.v2"}, Route("bot")),
            (CHAT | {"chatId": "19:b@thread.v2"}, Route("account", "b@x.example")),
            (CHANNEL | {"channelId": "19:FLOW@thread.tacv2"}, Route("workflow", "alerts")),
            (CHAT | {"chatId": "19:bot@thread.v2", "sender": "account"}, Route("account")),
            (CHAT | {"sendAs": "b@X.example"}, Route("account", "b@X.example")),
            (CHAT | {"sender": "bot"}, Route("bot")),
            (CHAT | {"sender": "activity"}, Route("activity")),
            ({"workflow": "alerts", "content": "x"}, Route("workflow", "alerts")),
            (
                {"userIds": ["u"], "content": "x", "topic": {"value": "t", "webUrl": "https://x.example"}},
                Route("activity"),
            ),
        ],
    )
    def test_the_payload_comes_before_the_rules_and_these_before_the_account(
        self, payload: dict[str, Any], route: Route
    ) -> None:
        assert route_of(parse(payload), ROUTES) == route

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            ({"sender": "pigeon"}, "payload.sender: "),
            ({"sender": "workflow"}, "workflow: it is missing"),
            ({"sender": "bot", "workflow": "alerts"}, "sender: workflow goes with workflow only"),
            ({"sender": "bot", "sendAs": "a@x.example"}, "sender: workflow goes with workflow only"),
            ({"sendAs": "a@x.example", "workflow": "alerts"}, "sender: workflow goes with workflow only"),
            ({"sendAs": "c@x.example"}, "sendAs: it is no service account; add it to GRAPH_SERVICE_ACCOUNT"),
            ({"workflow": "other"}, "workflow: there is none of this name; the names in TEAMS_WORKFLOWS are: alerts"),
            ({"topic": {"value": "t", "webUrl": "https://x.example"}}, "topic: only"),
            ({"userIds": ["u"]}, "userIds stand alone"),
            ({"chatId": None, "userIds": ["u"], "sender": "bot"}, "userIds: people are told by"),
            ({"chatId": None, "teamId": "t"}, "channelId: it is missing"),
            ({"chatId": None, "channelId": "c"}, "channelId: teamId is missing"),
            ({"chatId": None, "replyToId": "1"}, "replyToId: give the chatId"),
            ({"chatId": None}, "no place to post to: give chatId, or teamId and channelId"),
        ],
    )
    def test_a_choice_that_cannot_be_is_refused(self, change: dict[str, Any], text: str) -> None:
        payload = {name: value for name, value in (CHAT | change).items() if value is not None}
        assert text in refusal(payload)

    def test_without_settings_only_what_the_payload_says_is_judged(self) -> None:
        payload = json.dumps({"workflow": "any", "content": "x"})
        assert isinstance(parse_payload("teams-outbound", payload), TeamsMessage)

    @pytest.mark.parametrize(
        ("text", "why"),
        [
            ("[]", "must be a JSON object"),
            ("{", "is not JSON"),
            ('{"a": "pigeon"}', '"a" has no sender'),
            ('{"a": "bot:x"}', '"a" has no sender'),
            ('{"a": "workflow"}', '"a" has no sender'),
            ('{"a": 1}', '"a" has no sender'),
            ('{"a": "bot", "a": "account"}', "the same pattern twice"),
        ],
    )
    def test_rules_that_cannot_be_read_say_why(self, text: str, why: str) -> None:
        with pytest.raises(ValueError, match=why):
            parse_rules(text)


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (CHAT, "chat:19:a@thread.v2"),
        (CHAT | {"sender": "bot"}, "chat:19:a@thread.v2"),
        (CHANNEL | {"replyToId": "1"}, "chat:t/19:c@thread.tacv2"),
        ({"workflow": "Alerts"}, "chat:alerts"),
        ({"userIds": ["u"]}, None),
    ],
)
def test_every_sender_counts_by_its_chat_channel_or_workflow(payload: dict[str, Any], key: str | None) -> None:
    limit_key = QUEUES["teams-outbound"].limit_key
    assert limit_key is not None and limit_key.of(payload) == key


REFUSED: list[tuple[str, dict[str, Any], str]] = [
    ("bot", {"importance": "urgent"}, "importance: a bot"),
    ("bot", mention("everyone"), "mentions: a bot mentions people only"),
    ("bot", {"attachments": [FILE]}, "attachments: a bot cannot refer to files"),
    ("bot", {"replyToId": "1"}, "replyToId: a bot cannot quote in a chat"),
    ("bot", {"images": [image(PNG + b"x" * 1024 * 1024)]}, "images.0: it has 1048584 bytes, and a bot's may"),
    ("workflow", {"content": "<b>x</b>", "contentType": "html"}, "contentType: a workflow posts text or a card"),
    ("workflow", mention(), "mentions: a workflow takes none"),
    ("workflow", {"importance": "high"}, "importance: a workflow has none"),
    ("workflow", {"attachments": [FILE]}, "attachments: a workflow takes no files"),
    ("workflow", {"images": [image()]}, "images: a workflow takes none"),
    ("workflow", {"replyToId": "1"}, "replyToId: a workflow cannot reply"),
    ("activity", {"card": CARD}, "card: a notification takes none"),
    ("activity", {"content": "", "card": CARD}, "content: it is empty"),
    ("activity", {"content": "<b>x</b>", "contentType": "html"}, "contentType: a notification is plain text"),
    ("activity", mention(), "mentions: a notification takes none"),
    ("activity", {"importance": "high"}, "importance: a notification has none"),
    ("activity", {"images": [image()]}, "images: a notification takes none"),
    ("account", mention("channel"), "mentions: a chat has no channel; mention everyone"),
]


@pytest.mark.parametrize(("sender", "change", "text"), REFUSED)
def test_what_a_sender_cannot_carry_is_refused_with_a_way_out(sender: str, change: dict[str, Any], text: str) -> None:
    named = {"workflow": "alerts"} if sender == "workflow" else {"sender": sender}
    found = refusal(CHAT | named | change)
    assert text in found and ("account" in found or ";" in found)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    found = refusal(CHAT | {"sender": "bot", "importance": "high", "attachments": [FILE]})
    assert "importance:" in found and "attachments:" in found


def test_a_notification_to_people_needs_a_topic() -> None:
    assert "topic: a notification to people needs one" in refusal({"userIds": ["u"], "content": "x"})
    topic = {"value": "t", "webUrl": "http://x.example"}
    assert "begins with https" in refusal({"userIds": ["u"], "content": "x", "topic": topic})


class TestHtml:
    @pytest.mark.parametrize(
        ("markup", "kept"),
        [
            ("<script>alert(1)</script>x", "x"),
            ('<a href="javascript:alert(1)" onclick="x">l</a>', "<a>l</a>"),
            ('<a href="java&#10;script:alert(1)">l</a>', "<a>l</a>"),
            ('<a href="data:text/html,x">l</a>', "<a>l</a>"),
            ('<a href="/teams">l</a>', "<a>l</a>"),
            ('<a href="https://x.example/?a=1&amp;b=2">l</a>', '<a href="https://x.example/?a=1&amp;b=2">l</a>'),
            ("<img src=x onerror=alert(1)>", "<img>"),
            ("<svg><style><img src=x onerror=alert(1)></style></svg>", "<img>"),
            ("<iframe src=//x></iframe><object></object><form><input></form>a", "a"),
            ('<p style="color:red;position:fixed;background:url(x)">x</p>', '<p style="color:red">x</p>'),
            ('<span itemprop="fleet-queue" itemid="other">x</span>', "<span>x</span>"),
            ('<at id="0">A</at><attachment id="g"></attachment>', '<at id="0">A</at><attachment id="g"></attachment>'),
            ('<codeblock class="Python"><code>x</code></codeblock>',) * 2,
        ],
    )
    def test_what_teams_does_not_render_is_left_out(self, markup: str, kept: str) -> None:
        assert clean(markup) == kept

    @given(st.text(alphabet="<>/=\"'& abijscronmagpthe:;(){}\n\x00", max_size=80))
    def test_cleaning_twice_changes_nothing(self, markup: str) -> None:
        once = clean(markup)
        assert clean(once) == once

    def test_a_script_alone_is_no_content(self) -> None:
        assert not has_content(clean("<script>alert(1)</script><img>"))
        assert "content is empty" in refusal(CHAT | {"content": "<script>x</script>", "contentType": "html"})

    def test_a_mention_inside_of_what_is_left_out_does_not_count(self) -> None:
        hidden = mention() | {"content": '<script><at id="0">A</at></script>x'}
        assert "must name the same ids" in refusal(CHAT | hidden)

    def test_deep_markup_is_refused_or_cleaned_in_time(self) -> None:
        assert "at most 100000" in refusal(CHAT | {"content": "<div>" * 20_001, "contentType": "html"})


class TestImages:
    @pytest.mark.parametrize(
        ("given", "text"),
        [
            (image() | {"contentBytes": "@@@"}, "contentBytes is not base64"),
            (image(b"MZ\x90"), "contentBytes is no PNG, JPEG or GIF"),
            (image(b"<svg/>"), "contentBytes is no PNG, JPEG or GIF"),
            (image(b"\xff\xd8\xff\xe0"), "contentBytes is image/jpeg: give that"),
            (image(kind="image/svg+xml"), "contentType"),
            (image(name="../x"), "contentId"),
        ],
    )
    def test_the_type_is_judged_by_the_content(self, given: dict[str, Any], text: str) -> None:
        assert text in refusal(CHAT | {"images": [given]})

    @pytest.mark.parametrize("size", [IMAGES_BYTES, IMAGES_BYTES + 1])
    def test_they_count_decoded_and_together(self, size: int) -> None:
        half = PNG + b"x" * (size // 2 - len(PNG))
        rest = PNG + b"x" * (size - len(half) - len(PNG))
        images = [image(half, name="a"), image(rest, name="b")]
        if size > IMAGES_BYTES:
            assert f"images have {size} bytes together" in refusal(CHAT | {"images": images})
        else:
            assert sum(one.size for one in parse(CHAT | {"images": images}).images) == size

    def test_they_do_not_count_in_the_size_of_the_message(self) -> None:
        payload = parse(CHAT | {"images": [image(PNG + b"x" * 100_000)], "content": "x" * 28_000})
        assert payload.images[0].size == 100_008

    @pytest.mark.parametrize("content", ['<img src="cid:other">', '<img src="cid:map"><img src="cid:other">'])
    def test_the_text_names_only_images_that_are_there(self, content: str) -> None:
        assert "must name the same contentIds" in refusal(
            CHAT | {"content": content, "contentType": "html", "images": [image()]}
        )

    def test_they_stand_where_the_text_says_and_else_at_the_end(self) -> None:
        payload = parse(
            CHAT
            | {
                "content": '<p><img alt="b" src="cid:b" onerror="x"></p>',
                "contentType": "html",
                "images": [image(name="a"), image(name="b")],
            }
        )
        message = account_message(payload, ID)
        assert message["body"]["content"].endswith(
            '<p><img alt="b" src="../hostedContents/2/$value"></p><img src="../hostedContents/1/$value">'
        )
        assert [one["@microsoft.graph.temporaryId"] for one in message["hostedContents"]] == ["1", "2"]


class TestSizes:
    @pytest.mark.parametrize(
        ("sender", "filler", "most"),
        [("account", "ü", MESSAGE_BYTES), ("bot", "🚚", BOT_BYTES), ("workflow", "x", MESSAGE_BYTES)],
    )
    def test_each_sender_has_a_limit_of_its_own_to_the_byte(self, sender: str, filler: str, most: int) -> None:
        width = len(filler.encode("utf-16-le" if sender == "bot" else "utf-8"))
        named = {"workflow": "alerts"} if sender == "workflow" else {"sender": sender}
        count = most // width
        found = refusal(CHAT | named | {"content": filler * count})
        assert f"more than the {most} that Teams takes" in found
        over = int(found.split(" bytes, ")[1].split(" more than")[0])
        fits = count - -(-over // width)
        parse(CHAT | named | {"content": filler * fits})
        assert "more than" in refusal(CHAT | named | {"content": filler * (fits + 1)})

    def test_half_a_surrogate_pair_is_refused_by_field(self) -> None:
        with pytest.raises(PayloadError, match=r"payload"):
            parse_payload("teams-outbound", '{"chatId": "19:a@thread.v2", "content": "a\\ud83d"}')


class TestBodies:
    @pytest.mark.parametrize(
        ("place", "kind", "conversation"),
        [
            (CHAT, "everyone", {"id": "19:a@thread.v2", "conversationIdentityType": "chat"}),
            (CHANNEL, "channel", {"id": "19:c@thread.tacv2", "conversationIdentityType": "channel"}),
            (CHANNEL, "team", {"id": "t", "conversationIdentityType": "team"}),
        ],
    )
    def test_a_whole_chat_channel_or_team_is_mentioned_by_its_id(
        self, place: dict[str, Any], kind: str, conversation: dict[str, Any]
    ) -> None:
        (made,) = account_message(parse(place | mention(kind)), ID)["mentions"]
        assert made["mentioned"]["conversation"] == conversation | {"displayName": "A"}

    @pytest.mark.parametrize("person", [{"kind": "everyone", "userId": "u"}, {"kind": "user"}])
    def test_a_user_id_goes_with_a_user(self, person: dict[str, Any]) -> None:
        wrong = mention() | {"mentions": [{"id": 0, "name": "A", **person}]}
        assert "userId names a user" in refusal(CHAT | wrong)

    def test_a_name_with_markup_is_text_in_a_bots_mention(self) -> None:
        named = mention() | {"mentions": [{"id": 0, "name": "A <b>&", "userId": "u"}]}
        activity = bot_activity(parse(CHAT | {"sender": "bot"} | named), ID, {0: "29:u"})
        assert activity["entities"][0]["text"] == "<at>A &lt;b&gt;&amp;</at>"
        assert activity["text"].endswith(activity["entities"][0]["text"])

    def test_a_card_that_is_all_of_a_bots_message_has_no_text_beside_it(self) -> None:
        activity = bot_activity(parse(CHAT | {"sender": "bot", "content": "", "card": CARD}), ID, {})
        assert "text" not in activity
        hidden = activity["attachments"][0]["content"]["body"][-1]
        assert (hidden["id"], hidden["isVisible"]) == (f"fleet-queue-{ID}", False)

    def test_a_workflows_card_keeps_what_it_has(self) -> None:
        card = CARD | {"msteams": {"entities": []}, "body": [{"type": "TextBlock", "text": "x"}]}
        message = workflow_message(parse({"workflow": "alerts", "card": card}), ID)
        content = message["attachments"][0]["content"]
        assert content | {"body": content["body"][:-1]} == card
        hidden = content["body"][-1]
        assert (hidden["id"], hidden["isVisible"]) == (f"fleet-queue-{ID}", False)
