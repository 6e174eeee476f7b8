"""Mail through Graph: drafts that carry the job's id, sending them, finding them again, and reading messages."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shared.graph.client import IMMUTABLE_IDS, GraphClient, items
from shared.graph.errors import AnswerLost, GraphError

#: The extended property that marks a mail as ours. A search by it covers all folders of a mailbox.
JOB_ID_PROPERTY = "String {8f1a6c1e-3b52-4d6e-9c35-5d9f2b7c0a41} Name FleetQueueJobId"
SENT_ITEMS = "sentitems"

_PREFER = (IMMUTABLE_IDS,)
_STATE = "id,isDraft,internetMessageId,conversationId,webLink,sentDateTime"
_MESSAGE = (
    "id,isDraft,internetMessageId,internetMessageHeaders,conversationId,webLink,subject,body,from,sender,"
    "toRecipients,ccRecipients,bccRecipients,replyTo,importance,categories,hasAttachments,receivedDateTime,"
    "sentDateTime,lastModifiedDateTime,parentFolderId"
)
_ATTACHMENT = "id,name,contentType,size,isInline"


@dataclass(frozen=True, slots=True)
class MailState:
    """Where a mail of ours stands; `id` is immutable."""

    id: str
    is_draft: bool
    internet_message_id: str | None
    conversation_id: str | None
    web_link: str | None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> MailState:
        if not isinstance(message.get("id"), str):
            raise AnswerLost("Graph's answer is no message")
        return cls(
            id=message["id"],
            is_draft=message.get("isDraft") is True,
            internet_message_id=message.get("internetMessageId"),
            conversation_id=message.get("conversationId"),
            web_link=message.get("webLink"),
        )


class MailClient:
    """Mail operations of the application. `user` is a user name or id. All methods raise GraphFailure."""

    def __init__(self, graph: GraphClient) -> None:
        self._graph = graph

    def create_draft(self, user: str, message: Mapping[str, Any], job_id: str) -> MailState:
        """A draft with Graph's properties of a message, marked with the job's id."""
        body = {**message, "singleValueExtendedProperties": [{"id": JOB_ID_PROPERTY, "value": job_id}]}
        created = self._graph.call("POST", "/users/{user}/messages", user=user, body=body, expect=201, prefer=_PREFER)
        return MailState.of(created)

    def find_by_job(self, user: str, job_id: str, folder: str | None = None) -> list[MailState]:
        """The mails that carry this job's id, in all folders or in one; drafts last."""
        query = {
            "$filter": "singleValueExtendedProperties/Any(ep: "
            f"ep/id eq '{_quoted(JOB_ID_PROPERTY)}' and ep/value eq '{_quoted(job_id)}')",
            "$select": _STATE,
        }
        if folder is None:
            page = self._graph.call("GET", "/users/{user}/messages", user=user, query=query, prefer=_PREFER)
        else:
            page = self._graph.call(
                "GET",
                "/users/{user}/mailFolders/{folder}/messages",
                user=user,
                folder=folder,
                query=query,
                prefer=_PREFER,
            )
        return sorted((MailState.of(item) for item in items(page)), key=lambda state: state.is_draft)

    def state(self, user: str, message: str) -> MailState | None:
        """Where the mail stands now; None when it is not there (which passes while it is being sent)."""
        try:
            found = self._graph.call(
                "GET",
                "/users/{user}/messages/{message}",
                user=user,
                message=message,
                query={"$select": _STATE},
                prefer=_PREFER,
            )
        except GraphError as error:
            if error.status == 404:
                return None
            raise
        return MailState.of(found)

    def add_attachment(self, user: str, message: str, attachment: Mapping[str, Any]) -> None:
        """Add one to a draft; below 3 MB."""
        self._graph.call(
            "POST",
            "/users/{user}/messages/{message}/attachments",
            user=user,
            message=message,
            body=attachment,
            expect=201,
            prefer=_PREFER,
        )

    def attachments(self, user: str, message: str) -> list[dict[str, Any]]:
        """What is attached, inline ones too, without the contents."""
        return list(
            self._graph.pages(
                "/users/{user}/messages/{message}/attachments",
                user=user,
                message=message,
                query={"$select": _ATTACHMENT},
                prefer=_PREFER,
            )
        )

    def send_draft(self, user: str, message: str) -> None:
        """Send a draft. Graph takes it (202) before it is transported."""
        self._graph.call(
            "POST",
            "/users/{user}/messages/{message}/send",
            user=user,
            message=message,
            expect=202,
            prefer=_PREFER,
        )

    def message(self, user: str, message: str) -> dict[str, Any]:
        """A message with headers and, where there is one, the job id that marks it as ours."""
        return self._graph.call(
            "GET",
            "/users/{user}/messages/{message}",
            user=user,
            message=message,
            query={
                "$select": _MESSAGE,
                "$expand": f"singleValueExtendedProperties($filter=id eq '{_quoted(JOB_ID_PROPERTY)}')",
            },
            prefer=_PREFER,
        )


def job_id_of(message: Mapping[str, Any]) -> str | None:
    """The job that made this message, when it carries our mark."""
    properties = message.get("singleValueExtendedProperties")
    for item in properties if isinstance(properties, list) else []:
        if isinstance(item, dict) and str(item.get("id", "")).lower() == JOB_ID_PROPERTY.lower():
            return str(item.get("value"))
    return None


def _quoted(text: str) -> str:
    return text.replace("'", "''")
