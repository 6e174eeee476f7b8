"""Takes in a Teams message that a notification names: fetches it, keeps it once, follows edits and deletions."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection
from contextlib import suppress
from typing import Any

from pydantic import field_validator

from shared.engine.context import Context, Handler
from shared.engine.job import Completed, Job
from shared.graph.errors import GraphError
from shared.graph.teams import Place, TeamsClient
from shared.handlers.graph_errors import graph_attempt
from shared.handlers.html_text import plain_text
from shared.handlers.inbound import (
    NotificationReference,
    Told,
    child,
    either,
    ids,
    look_again,
    moment,
    objects,
    segment,
    sortable,
)
from shared.handlers.payload_fields import text_of
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services
from shared.handlers.teams_marker import is_marked
from shared.handlers.teams_senders import sender_id

_CHAT = re.compile(rf"(?:users{segment('user')}/)?chats{segment('chat')}/messages{segment('message')}", re.IGNORECASE)
_CHANNEL = re.compile(
    rf"teams{segment('team')}/channels{segment('channel')}/messages{segment('message')}"
    rf"(?:/replies{segment('reply')})?",
    re.IGNORECASE,
)
_HOSTED = re.compile(r"/hostedContents/([^/\"'\s]+)/\$value", re.IGNORECASE)
_KEPT = (
    "messageType", "importance", "webUrl", "etag", "mentions", "reactions", "from", "replyToId", "policyViolation",
)  # fmt: skip


class ChatMessageReference(NotificationReference):
    """A message of a chat or channel. `message` is the message itself where the notification brought it."""

    message: dict[str, Any] | None = None

    @field_validator("resource")
    @classmethod
    def _path(cls, value: str) -> str:
        address(value)
        return value


class TeamsInbound:
    """The handler of `teams-inbound`."""

    def __init__(
        self,
        teams: TeamsClient,
        log: CommunicationLog,
        own_accounts: Callable[[], Collection[str]],
        told: Told | None = None,
    ) -> None:
        self._teams = teams
        self._log = log
        self._own_accounts = own_accounts
        self._told = told or Told()

    def __call__(self, job: Job, payload: ChatMessageReference, context: Context) -> Completed:
        place, message_id = address(payload.resource)
        with graph_attempt(context):
            message = self._message(job, payload, place, message_id)
        if message is None:
            gone = self._log.mark_deleted("teams", place.external_id(message_id), job.id)
            return self._told.of(gone, job, "teams")
        if is_own(message, self._own_accounts()):
            return Completed({"outcome": "own"})  # the outbound handler has recorded it; answering it would loop
        if message.get("messageType") not in (None, "message"):
            return Completed({"outcome": "ignored", "message_type": text_of(message.get("messageType"))})
        fetched = message is not payload.message
        recorded = self._log.record(communication(job, place, message_id, message, fetched=fetched))
        return self._told.of(recorded, job, "teams")

    def _message(self, job: Job, payload: ChatMessageReference, place: Place, message_id: str) -> dict[str, Any] | None:
        if payload.message is not None and payload.message.get("id") == message_id:
            return payload.message
        try:
            return self._teams.message(place, message_id)
        except GraphError as error:
            if error.status != 404:
                raise
            if payload.change_type != "deleted":
                look_again(job, error)
            return None


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    told = Told(services.events_endpoint)
    return TeamsInbound(services.teams, services.communications, services.own_account_ids, told)


def address(resource: str) -> tuple[Place, str]:
    """Where the message stands, and its id, from a notification's resource path."""
    with suppress(ValueError):
        found = ids(_CHAT, resource)
        return Place(chat_id=either(found, "chat")), either(found, "message") or ""
    found = ids(_CHANNEL, resource)
    root, reply = either(found, "message"), either(found, "reply")
    place = Place(team_id=either(found, "team"), channel_id=either(found, "channel"), reply_to=reply and root)
    return place, reply or root or ""


def communication(
    job: Job, place: Place, message_id: str, message: dict[str, Any], *, fetched: bool = True
) -> Communication:
    """The message as it is kept; `fetched` as in Communication."""
    body = child(message, "body")
    content = text_of(body.get("content"))
    is_html = text_of(body.get("contentType")).lower() == "html"
    return Communication(
        direction="in",
        channel="teams",
        external_id=place.external_id(message_id),
        thread_id=place.thread_id(message_id),
        sender=_sender(message),
        recipients=[place.chat_id or f"{place.team_id}/{place.channel_id}"],
        subject=text_of(message.get("subject")) or None,
        body=content,
        body_type="html" if is_html else "text",
        text=plain_text(content) if is_html else content.strip(),
        occurred_at=moment(message.get("createdDateTime")),
        edited_at=moment(message.get("lastEditedDateTime")),
        deleted_at=moment(message.get("deletedDateTime")),
        automatic=is_automatic(message),
        fetched=fetched,
        attachments=_attachments(message, content),
        job_id=job.id,
        correlation_id=job.correlation_id,
        raw={name: message[name] for name in _KEPT if message.get(name) is not None}
        | {"modifiedAt": sortable(message.get("lastModifiedDateTime"))},
    )


def is_own(message: dict[str, Any], accounts: Collection[str]) -> bool:
    """From a service account, or from a bot or workflow and with our mark: people may quote the mark, bots do not."""
    return sender_id(message) in accounts or (is_automatic(message) and is_marked(message))


def is_automatic(message: dict[str, Any]) -> bool:
    """Whether a bot, a workflow or another application wrote it."""
    return bool(child(child(message, "from"), "application"))


def _sender(message: dict[str, Any]) -> str | None:
    """The person's id, or that of the bot or app that wrote it."""
    application = child(child(message, "from"), "application")
    return sender_id(message) or text_of(application.get("id")) or None


def _attachments(message: dict[str, Any], content: str) -> list[AttachmentRecord]:
    """Files and cards as listed, and images that the text holds; nothing is fetched here."""
    records = [
        AttachmentRecord(
            external_id=text_of(item.get("id")) or f"unnamed-{number}",
            name=text_of(item.get("name")),
            content_type=text_of(item.get("contentType")) or None,
            size=None,
            is_inline=False,
            kind=_kind(text_of(item.get("contentType"))),
            details={"contentUrl": url} if (url := text_of(item.get("contentUrl"))) else {},
        )
        for number, item in enumerate(objects(message.get("attachments")))
    ]
    hosted = dict.fromkeys(_HOSTED.findall(content))
    return records + [AttachmentRecord(key, "", None, None, is_inline=True, kind="hosted") for key in hosted]


def _kind(content_type: str) -> str:
    if content_type == "reference":
        return "reference"
    if content_type == "messageReference":
        return "message"
    return "card" if "card" in content_type else "other"
