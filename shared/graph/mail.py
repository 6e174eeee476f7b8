"""Mail through Graph: drafts that carry the job's id, sending them, finding them again, and reading messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shared.graph.client import IMMUTABLE_IDS, GraphClient, items
from shared.graph.errors import AnswerLost, GraphError

#: The extended property that marks a mail as ours. A search by it covers all folders of a mailbox.
JOB_ID_PROPERTY = "String {8f1a6c1e-3b52-4d6e-9c35-5d9f2b7c0a41} Name FleetQueueJobId"
#: How many attachments a draft had before ours: those that a forward takes over.
FOREIGN_FILES_PROPERTY = "String {8f1a6c1e-3b52-4d6e-9c35-5d9f2b7c0a41} Name FleetQueueForeignFiles"
#: Has a message show the job that made it.
JOB_ID_EXPANDED = f"singleValueExtendedProperties($filter=id eq '{JOB_ID_PROPERTY}')"
SENT_ITEMS = "sentitems"
DELETED_ITEMS = "deleteditems"
DRAFTS = "drafts"

_PREFER = (IMMUTABLE_IDS,)
_STATE = "id,isDraft,internetMessageId,conversationId,webLink,sentDateTime,subject,toRecipients,ccRecipients"
#: What is read of a message that is kept.
MESSAGE_FIELDS = (
    "id,isDraft,internetMessageId,internetMessageHeaders,conversationId,webLink,subject,body,from,sender,"
    "toRecipients,ccRecipients,bccRecipients,replyTo,importance,categories,hasAttachments,receivedDateTime,"
    "sentDateTime,lastModifiedDateTime,parentFolderId"
)
_ATTACHMENT = "id,name,contentType,size,isInline,microsoft.graph.fileAttachment/contentId"


@dataclass(frozen=True, slots=True)
class MailState:
    """Where a mail of ours stands; `id` is immutable."""

    id: str
    is_draft: bool
    internet_message_id: str | None
    conversation_id: str | None
    web_link: str | None
    foreign_files: int = 0
    subject: str | None = None
    recipients: tuple[str, ...] = ()
    sent_at: str | None = None

    @classmethod
    def of(cls, message: Mapping[str, Any]) -> MailState:
        if not isinstance(message.get("id"), str):
            raise AnswerLost("Graph's answer is no message")
        foreign_files = _property_of(message, FOREIGN_FILES_PROPERTY) or ""
        return cls(
            id=message["id"],
            is_draft=message.get("isDraft") is True,
            internet_message_id=message.get("internetMessageId"),
            conversation_id=message.get("conversationId"),
            web_link=message.get("webLink"),
            foreign_files=int(foreign_files) if foreign_files.isdigit() else 0,
            subject=message.get("subject"),
            recipients=tuple(_addresses(message)),
            sent_at=None if message.get("isDraft") is True else message.get("sentDateTime"),
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

    def create_answer(self, user: str, message: str, action: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Graph's own draft of a `reply`, `replyAll` or `forward` of a message; the whole message, with its body."""
        return self._graph.call(
            "POST",
            f"/users/{{user}}/messages/{{message}}/create{action[0].upper()}{action[1:]}",
            user=user,
            message=message,
            body=request,
            expect=201,
            prefer=_PREFER,
        )

    def claim_answer(
        self, user: str, draft: str, changes: Mapping[str, Any], job_id: str, foreign_files: int
    ) -> MailState:
        """Make a draft of Graph's ours: all changes and the marks, in one request."""
        properties = [
            {"id": JOB_ID_PROPERTY, "value": job_id},
            {"id": FOREIGN_FILES_PROPERTY, "value": str(foreign_files)},
        ]
        changed = self._graph.call(
            "PATCH",
            "/users/{user}/messages/{message}",
            user=user,
            message=draft,
            body={**changes, "singleValueExtendedProperties": properties},
            prefer=_PREFER,
        )
        return replace(MailState.of(changed), foreign_files=foreign_files)

    def drafts_of(self, user: str, conversation: str) -> Iterator[dict[str, Any]]:
        """The drafts of a conversation, with their bodies."""
        return self._graph.pages(
            "/users/{user}/mailFolders/{folder}/messages",
            user=user,
            folder=DRAFTS,
            query={"$filter": f"conversationId eq '{_quoted(conversation)}'", "$select": f"{_STATE},body"},
            prefer=_PREFER,
        )

    def find_by_job(self, user: str, job_id: str, folder: str | None = None) -> list[MailState]:
        """The mails that carry this job's id, in all folders or in one; drafts last."""
        query = {
            "$filter": "singleValueExtendedProperties/Any(ep: "
            f"ep/id eq '{_quoted(JOB_ID_PROPERTY)}' and ep/value eq '{_quoted(job_id)}')",
            "$select": _STATE,
            "$expand": _expand(FOREIGN_FILES_PROPERTY),
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
                query={"$select": _STATE, "$expand": _expand(FOREIGN_FILES_PROPERTY)},
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

    def create_upload(self, user: str, message: str, item: Mapping[str, Any]) -> Any:
        """An upload session for an attachment of 3 MB or more; its uploadUrl, unchecked."""
        session = self._graph.call(
            "POST",
            "/users/{user}/messages/{message}/attachments/createUploadSession",
            user=user,
            message=message,
            body={"AttachmentItem": item},
            expect=201,
            prefer=_PREFER,
        )
        return session.get("uploadUrl")

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

    def attached_item(self, user: str, message: str, attachment: str) -> dict[str, Any]:
        """The message, event or contact that an itemAttachment holds, with all its properties."""
        found = self._graph.call(
            "GET",
            "/users/{user}/messages/{message}/attachments/{attachment}",
            user=user,
            message=message,
            attachment=attachment,
            query={"$expand": "microsoft.graph.itemattachment/item"},
            prefer=_PREFER,
        )
        item = found.get("item")
        return item if isinstance(item, dict) else {}

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

    def folder_id(self, user: str, folder: str) -> str | None:
        """The id of a folder with a well-known name; None where the mailbox has none."""
        try:
            found = self._graph.call(
                "GET", "/users/{user}/mailFolders/{folder}", user=user, folder=folder, query={"$select": "id"}
            )
        except GraphError as error:
            if error.status == 404:
                return None
            raise
        return found["id"] if isinstance(found.get("id"), str) else None

    def move(self, user: str, message: str, folder: str) -> None:
        """Move a mail to a folder with a well-known name; one that is there stays there."""
        self._graph.call(
            "POST",
            "/users/{user}/messages/{message}/move",
            user=user,
            message=message,
            body={"destinationId": folder},
            expect=201,
            prefer=_PREFER,
        )

    def mime(self, user: str, message: str, at_most: int) -> bytes:
        """The first bytes of a message as it was transported."""
        return self._graph.content(
            "/users/{user}/messages/{message}/$value", at_most=at_most, user=user, message=message, prefer=_PREFER
        )

    def message(self, user: str, message: str) -> dict[str, Any]:
        """A message with headers and, where there is one, the job id that marks it as ours."""
        return self._graph.call(
            "GET",
            "/users/{user}/messages/{message}",
            user=user,
            message=message,
            query={
                "$select": MESSAGE_FIELDS,
                "$expand": JOB_ID_EXPANDED,
            },
            prefer=_PREFER,
        )


def job_id_of(message: Mapping[str, Any]) -> str | None:
    """The job that made this message, when it carries our mark."""
    return _property_of(message, JOB_ID_PROPERTY)


def _addresses(message: Mapping[str, Any]) -> Iterator[str]:
    for name in ("toRecipients", "ccRecipients"):
        for recipient in message.get(name) or []:
            address = (recipient.get("emailAddress") or {}).get("address")
            if isinstance(address, str):
                yield address


def _property_of(message: Mapping[str, Any], name: str) -> str | None:
    properties = message.get("singleValueExtendedProperties")
    for item in properties if isinstance(properties, list) else []:
        if isinstance(item, dict) and str(item.get("id", "")).lower() == name.lower():
            return str(item.get("value"))
    return None


def _expand(name: str) -> str:
    return f"singleValueExtendedProperties($filter=id eq '{_quoted(name)}')"


def _quoted(text: str) -> str:
    return text.replace("'", "''")
