"""The control API under /_control: what tests and the demo do that no client of Graph can."""

from __future__ import annotations

import base64
import binascii
import inspect
import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from local.fake_graph import chat_changes, chat_form, control_identity, mail, mime, sync_control, teams
from local.fake_graph import message_form as form
from local.fake_graph.call import Answer, GraphError, Json
from local.fake_graph.delivery import Demand
from local.fake_graph.faults import FaultError
from local.fake_graph.state import Mail, User, World

if TYPE_CHECKING:
    from local.fake_graph.app import FakeGraphApp

LIFECYCLE_EVENTS = ("reauthorizationRequired", "subscriptionRemoved", "missed")


class ControlError(Exception):
    """A control request that cannot be carried out; the answer is 400 with the message."""


class Control:
    """Routes /_control/…: a handler gets the JSON body and the path's parameters, and returns JSON."""

    def __init__(self, app: FakeGraphApp) -> None:
        self._app = app
        self._routes: list[tuple[str, re.Pattern[str], Callable[..., Any]]] = [
            (method, re.compile(f"/_control/{path}"), handler)
            for method, path, handler in (
                ("GET", "ready", lambda _: {"ready": True}),
                ("POST", "reset", self._reset),
                ("POST", "users", self._add_user),
                ("POST", "chats", self._add_chat),
                ("POST", "teams", self._add_team),
                ("POST", "device-code/approve", self._approve),
                ("POST", "mails", self._arrive_mail),
                ("POST", "chat-messages", self._arrive_chat_message),
                ("POST", "chat-messages/edit", self._edit_chat_message),
                ("POST", "chat-messages/delete", self._delete_chat_message),
                ("POST", "chat-messages/restore", self._restore_chat_message),
                ("POST", "rich", app.world.publisher.order),
                ("POST", "deliver", self._deliver),
                ("POST", "auto-deliver", self._auto_deliver),
                ("GET", "deliveries", lambda _: [result.as_json() for result in app.deliverer.results]),
                ("POST", "lifecycle", self._lifecycle),
                ("POST", "clock", app.world.book.set_clock),
                ("POST", "subscription-quotas", app.world.book.set_quotas),
                ("POST", "expire-subscription", self._expire_subscription),
                ("POST", "faults", lambda body: {"id": app.faults.add(body).id}),
                ("GET", "faults", lambda _: app.faults.left()),
                ("DELETE", "faults", lambda _: _done(app.faults.clear)),
                ("GET", "requests", lambda _: list(app.journal.requests)),
                ("DELETE", "requests", lambda _: _done(app.journal.requests.clear)),
                ("GET", "violations", lambda _: app.journal.violations),
                ("DELETE", "violations", lambda _: _done(app.journal.violations.clear)),
                ("GET", "mailbox/(?P<user>.+)", self._mailbox),
                ("GET", "chat/(?P<chat>.+)/messages", self._chat_messages),
                ("GET", "channel/(?P<team>[^/]+)/(?P<channel>.+)/messages", self._channel_messages),
                ("GET", "subscriptions", self._subscriptions),
                ("GET", "activity/(?P<user>.+)", lambda _, user: self._world.feeds.of(self._world.user(user).id)),
                ("POST", "workflows", lambda body: {"url": app.workflows.add(body, app.base_url)}),
                ("POST", "bot", self._bot),
                ("GET", "push-notices", lambda _: app.hubs.notices),
                ("GET", "received/(?P<name>.+)", lambda _, name: app.receivers.received.get(name, [])),
                ("POST", "limits", self._limits),
                ("POST", "transport", self._transport),
                ("POST", "send-as", self._send_as),
                ("POST", "undeliverable", self._undeliverable),
                ("POST", "uploads", self._uploads),
            )
        ]
        self._routes += [
            (method, re.compile(f"/_control/{path}"), run) for method, path, run in sync_control.routes(app)
        ]

        self._routes += [
            (method, re.compile(f"/_control/{path}"), handler)
            for method, path, handler in control_identity.routes(app.world)
        ]

    @property
    def _world(self) -> World:
        return self._app.world

    async def answer(self, method: str, path: str, raw: bytes) -> Answer:
        """Carry a control request out; 400 and 404 with {"error"} when it makes no sense."""
        for known, pattern, handler in self._routes:
            match = pattern.fullmatch(unquote(path))
            if match is None or known != method:
                continue
            try:
                result = handler(json.loads(raw) if raw else {}, **match.groupdict())
                return Answer(200, await result if inspect.isawaitable(result) else result)
            except GraphError as error:
                return Answer(error.status, {"error": error.message})
            except (ControlError, FaultError, LookupError, TypeError, ValueError) as error:
                return Answer(400, {"error": f"{type(error).__name__}: {error}"})
        return Answer(404, {"error": f"there is no control call {method} {path}"})

    def _reset(self, _: Json) -> Json:
        self._app.world.reset()
        self._app.journal.clear()
        self._app.faults.clear()
        self._app.limits.reset()
        self._app.deliverer.reset()
        for peer in self._app.peers.values():
            peer.reset()
        return {}

    def _add_user(self, body: Json) -> Json:
        user = self._world.add_user(body["id"], body["userPrincipalName"], body["displayName"])
        return {"id": user.id}

    def _add_chat(self, body: Json) -> Json:
        return {"id": self._world.add_chat(body["id"], body.get("topic"), body["members"]).id}

    def _add_team(self, body: Json) -> Json:
        channels = {channel["id"]: channel["displayName"] for channel in body["channels"]}
        return {"id": self._world.add_team(body["id"], body["displayName"], channels, body.get("members")).id}

    def _approve(self, body: Json) -> Json:
        user = self._world.user(body["user"])
        self._app.authority.flows.approve(body["user_code"], user)
        return {"user": user.id}

    def _arrive_mail(self, body: Json) -> Json:
        user = self._world.user(body["user"])
        try:
            raw = base64.b64decode(body["mime"], validate=True)
        except binascii.Error as error:
            raise ControlError(f"mime is not base64: {error}") from error
        arrived = mime.parse(raw, user)
        arrived.raw = raw
        form.mark_received(arrived)
        mail.arrive(self._world, user, arrived)
        return {"id": arrived.id, "immutableId": arrived.immutable_id}

    def _arrive_chat_message(self, body: Json) -> Json:
        sender = self._world.user(body["from"])
        message = {key: value for key, value in body.items() if key not in ("chat", "team", "channel", "from")}
        reply_to = message.pop("replyTo", None)
        chat_form.check_message(message, 0)
        base_url = self._app.base_url
        if "chat" in body:
            added = teams.add_chat_message(self._world, body["chat"], sender, message, base_url)
        else:
            added = teams.add_channel_message(
                self._world, body["team"], body["channel"], reply_to, sender, message, base_url
            )
        return {"id": added.id}

    def _edit_chat_message(self, body: Json) -> Json:
        return chat_changes.edit(self._world, body)

    def _delete_chat_message(self, body: Json) -> Json:
        return chat_changes.delete(self._world, body)

    def _restore_chat_message(self, body: Json) -> Json:
        return chat_changes.restore(self._world, body)

    async def _deliver(self, body: Json) -> list[Json]:
        wanted = dict(body)
        if wanted.pop("mode", "now") != "now":
            raise ControlError('the only mode is "now"')
        return await self._app.deliverer.deliver(Demand(**wanted))

    def _auto_deliver(self, body: Json) -> Json:
        self._app.deliverer.set_automatic(bool(body["on"]))
        return {"on": self._app.deliverer.automatic}

    async def _lifecycle(self, body: Json) -> Json:
        if body["event"] not in LIFECYCLE_EVENTS:
            raise ControlError(f"the event must be one of {', '.join(LIFECYCLE_EVENTS)}")
        subscription = self._world.subscriptions[body["subscription"]]
        if not subscription.value["lifecycleNotificationUrl"]:
            raise ControlError("the subscription has no lifecycleNotificationUrl")
        return await self._app.deliverer.lifecycle(subscription, body["event"])

    def _expire_subscription(self, body: Json) -> Json:
        self._world.subscriptions[body["subscription"]].expires_at = self._world.book.now()
        return {}

    def _mailbox(self, _: Json, user: str) -> list[Json]:
        owner = self._world.user(user)
        return [_shown(owner, message) for message in owner.mails.values()]

    def _chat_messages(self, _: Json, chat: str) -> list[Json]:
        return [message.value for message in self._world.chat(chat).messages.values()]

    def _channel_messages(self, _: Json, team: str, channel: str) -> list[Json]:
        return [message.value for message in self._world.channel(team, channel).messages.values()]

    def _subscriptions(self, _: Json) -> list[Json]:
        return [subscription.value for subscription in self._world.live_subscriptions()]

    def _limits(self, body: Json) -> Json:
        limits = self._app.limits
        limits.reset()
        limits.on = bool(body["on"])
        limits.mailbox_seconds = float(body.get("mailboxSeconds", 0))
        return {"on": limits.on}

    def _bot(self, body: Json) -> Json:
        self._world.without_bot = set(body.get("missingIn", []))
        self._world.bots_lose_markup = bool(body.get("losesMarkup", False))
        return {}

    def _transport(self, body: Json) -> Json:
        self._world.transport_seconds = float(body["seconds"])
        return {}

    def _send_as(self, body: Json) -> Json:
        self._world.send_as.add((self._world.user(body["user"]).upn.lower(), body["mailbox"].lower()))
        return {}

    def _undeliverable(self, body: Json) -> Json:
        self._world.refused[body["address"].lower()] = (body["status"], body["diagnostic"])
        return {}

    def _uploads(self, body: Json) -> Json:
        self._world.uploads.cut_after = body.get("cutAfter")
        return {"expired": self._world.uploads.expire() if body.get("expire") else 0}


def _done(action: Callable[[], None]) -> Json:
    action()
    return {}


def _shown(owner: User, message: Mail) -> Json:
    """Everything that the mailbox knows of a message."""
    return message.value | {
        "id": message.id,
        "immutableId": message.immutable_id,
        "folder": message.folder,
        "parentFolderId": owner.folder_id(message.folder),
        "attachments": [form.attachment_view(item) for item in message.attachments],
        "singleValueExtendedProperties": message.extended,
        "internetMessageHeaders": message.headers,
    }
