"""Mails and chat messages that a sync finds: the same rows of the communication log as those that are received."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from shared.graph.client import IMMUTABLE_IDS
from shared.graph.delta import Change, DeltaPage, DeltaQuery
from shared.graph.errors import GraphError
from shared.graph.mail import JOB_ID_EXPANDED, MESSAGE_FIELDS, SENT_ITEMS, job_id_of
from shared.graph.teams import Place
from shared.handlers import outlook_inbound, teams_inbound
from shared.handlers.inbound import child, moment
from shared.handlers.inbound_attachments import read_attachments
from shared.handlers.non_delivery import is_report
from shared.handlers.payload_fields import text_of
from shared.handlers.services import AttachmentRecord, Communication
from shared.handlers.sync_kinds import FOLDERS, Kind, folders, last_of_each
from shared.handlers.sync_store import Content, DeltaSet, Messages, NewSet

FOLDERS_PAGE = 200
MESSAGES_PAGE = 50
#: Each mail of a page may cost a request for its attachments, and a page must fit into a turn.
MAILS_PAGE = 25
#: Chats have no delta: each pass asks for what has changed since the last one, and for so much before, because changes
#: show late and clocks differ.
OVERLAP = timedelta(minutes=10)
#: Before Teams was.
FIRST = "2015-01-01T00:00:00.000Z"
_WHOLE = frozenset({"subject", "body", "from", "toRecipients", "receivedDateTime"})
_KEPT = frozenset(MESSAGE_FIELDS.split(",")) - {"id", "isDraft", "lastModifiedDateTime", "parentFolderId"}


class Emails(Kind):
    """The mail folders, and a set for each."""

    resource_type = "emails"

    def roots(self) -> list[NewSet]:
        self.permit()
        sent_items = self.reader.mail.folder_id(self.user, SENT_ITEMS)
        return [NewSet(self.name(FOLDERS), {"kind": FOLDERS, "sentItems": sent_items})]

    def query(self, details: Mapping[str, Any]) -> DeltaQuery:
        if details.get("kind") == FOLDERS:
            prefer = (IMMUTABLE_IDS, f"odata.maxpagesize={FOLDERS_PAGE}")
            return DeltaQuery("/users/{user}/mailFolders/delta", {"user": self.user}, {}, prefer)
        return DeltaQuery(
            "/users/{user}/mailFolders/{folder}/messages/delta",
            {"user": self.user, "folder": details["folder"]},
            {"$select": MESSAGE_FIELDS, "$expand": JOB_ID_EXPANDED},
            (IMMUTABLE_IDS, f"odata.maxpagesize={MAILS_PAGE}"),
        )

    def content(self, details: Mapping[str, Any], page: DeltaPage) -> Content:
        if details.get("kind") == FOLDERS:
            found = folders(self, page)
            sent = [
                replace(one, details={**one.details, "isSent": one.details["folder"] == details.get("sentItems")})
                for one in found.found
            ]
            return replace(found, found=sent)
        changes = last_of_each(page)
        is_sent = details.get("isSent") is True
        there = [change for change in changes if not change.removed and change.item.get("isDraft") is not True]
        known = self._known(there)
        mails = [mail for change in there if (mail := self._mail(change, known, is_sent)) is not None]
        gone = [change.id for change in changes if change.removed]
        return Messages(mails, [change.id for change in there], gone)

    def _known(self, changes: list[Change]) -> set[str]:
        """Those that are stored already; nobody is asked where it makes no difference."""
        asked = [
            one.id
            for one in changes
            if _is_part(one.item) or outlook_inbound.may_have_attachments(one.item) or is_report(dict(one.item))
        ]
        return self.reader.store.known_messages("outlook", asked) if asked else set()

    def _mail(self, change: Change, known: set[str], is_sent: bool) -> Communication | None:
        message = dict(change.item)
        if _is_part(message):
            if change.id in known and _KEPT.isdisjoint(message):
                return None  # read, flagged and the like
            whole = self._whole(change.id)
            if whole is None or whole.get("isDraft") is True:
                return None
            message = whole
        if is_sent and job_id_of(message) is not None:
            return None  # ours: the handler that sent it has recorded it, or will
        if change.id not in known and is_report(message):
            self.permit()
            self.reader.non_delivery.take_in(self.user, message)
        attachments: list[AttachmentRecord] = []
        if change.id not in known and outlook_inbound.may_have_attachments(message):
            attachments = read_attachments(self.reader.mail, self.user, change.id, self.permit)
        found = outlook_inbound.communication(self.job, self.user, change.id, message, attachments)
        return replace(found, direction="out") if is_sent else found

    def _whole(self, message_id: str) -> dict[str, Any] | None:
        self.permit()
        try:
            return self.reader.mail.message(self.user, message_id)
        except GraphError as error:
            if error.status != 404:
                raise
            return None  # gone since: its tombstone follows


class Chats(Kind):
    """One set: all chats of the user, or all channels of the team, replies included."""

    resource_type = "messages"

    def roots(self) -> list[NewSet]:
        return [NewSet(self.name("all"))]

    def start(self, known: DeltaSet, now: datetime) -> dict[str, Any]:
        since = known.details.get("next") if known.state == "ready" else None
        return {"since": since or FIRST, "until": _written(now), "next": _written(now - OVERLAP)}

    def query(self, details: Mapping[str, Any]) -> DeltaQuery:
        window = f"lastModifiedDateTime gt {details['since']} and lastModifiedDateTime lt {details['until']}"
        query = {"$filter": window, "$top": str(MESSAGES_PAGE)}
        if self.user:
            return DeltaQuery("/users/{user}/chats/getAllMessages", {"user": self.user}, query)
        return DeltaQuery("/teams/{team}/channels/getAllMessages", {"team": self.team}, query)

    def content(self, details: Mapping[str, Any], page: DeltaPage) -> Content:  # noqa: ARG002
        own = self.reader.own_accounts()
        found: dict[str, Communication] = {}
        deleted: dict[str, datetime | None] = {}
        seen: list[str] = []
        for change in page.changes:
            message = dict(change.item)
            place = _place(message)
            if place is None:
                continue
            external_id = place.external_id(change.id)
            seen.append(external_id)
            found.pop(external_id, None)
            deleted.pop(external_id, None)
            if teams_inbound.is_own(message, own) or message.get("messageType") not in (None, "message"):
                continue
            if message.get("deletedDateTime"):
                deleted[external_id] = moment(message["deletedDateTime"])
            else:
                found[external_id] = teams_inbound.communication(self.job, place, change.id, message)
        return Messages(list(found.values()), list(dict.fromkeys(seen)), (), list(deleted.items()))


def _place(message: Mapping[str, Any]) -> Place | None:
    """Where a message of a list over all chats or channels stands."""
    if chat := text_of(message.get("chatId")):
        return Place(chat_id=chat)
    channel = child(message, "channelIdentity")
    ids = text_of(channel.get("teamId")), text_of(channel.get("channelId"))
    if not all(ids):
        return None
    return Place(team_id=ids[0], channel_id=ids[1], reply_to=text_of(message.get("replyToId")) or None)


def _is_part(message: Mapping[str, Any]) -> bool:
    """Graph may send of a changed mail no more than what has changed."""
    return not _WHOLE.issubset(message)


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
