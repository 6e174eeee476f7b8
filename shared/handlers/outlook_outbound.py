"""Sends a mail; each job once, whenever a worker dies or an answer is lost.

The draft is the token of its own sending: it carries the job's id in an extended property, every later attempt
looks for it first, and a draft can be sent only once. Order: create, attach, send, confirm. Before the send its id is
kept on the job, so that a mail on its way from Drafts to Sent Items, which no search finds, is not taken for none.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from shared.engine.context import Context, Handler
from shared.engine.errors import RejectedError, UncertainError
from shared.engine.job import MAY_HAVE_TAKEN_EFFECT, Completed, Deferred, Job
from shared.graph.client import to_bytes
from shared.graph.errors import GraphError, GraphFailure
from shared.graph.mail import DELETED_ITEMS, MailClient, MailState
from shared.handlers.graph_errors import graph_attempt, job_error
from shared.handlers.html_text import plain_text
from shared.handlers.mail_answers import AnswerDrafts
from shared.handlers.mail_attachments import File, MailAttachments
from shared.handlers.mail_attempt import MailAttempt, PausedError
from shared.handlers.mail_message import build_file, build_message
from shared.handlers.mail_payload import Attachment, Mail
from shared.handlers.services import AttachmentRecord, Communication, CommunicationLog, Services

#: Up to this size the draft is created with its attachments; beyond, they follow one by one.
CREATE_BYTES = 3_000_000
#: More than what stands around the content of a file: names of at most 255 characters, escaped.
FILE_FIELDS = 5_000

#: What /send may say of a message that is on its way already.
_MAYBE_SENT = {400, 404, 409}


class OutlookOutbound:
    """The handler of `outlook-outbound`."""

    def __init__(self, mail: MailClient, attachments: MailAttachments, log: CommunicationLog) -> None:
        self._mail = mail
        self._attachments = attachments
        self._answers = AnswerDrafts(mail)
        self._log = log

    def __call__(self, job: Job, payload: Mail, context: Context) -> Completed | Deferred:
        attempt = MailAttempt(job, context)
        try:
            with graph_attempt(context):
                state, confirmed = self._send_once(attempt, payload)
                # Before it leaves Sent Items: elsewhere only the log tells that it did not come in.
                self._log.record(_communication(job, payload, state, attempt.sizes))
                if not payload.save_to_sent_items:
                    self._put_away(attempt, payload, state)
        except PausedError as pause:
            return Deferred(timedelta(), str(pause))
        return Completed(
            {
                "outcome": "sent",
                "message_id": state.id,
                "internet_message_id": state.internet_message_id,
                "web_url": state.web_link,
                "confirmed": confirmed,
                "sent_at": state.sent_at,
                "read_back": attempt.read_back,
            }
        )

    def _send_once(self, attempt: MailAttempt, mail: Mail) -> tuple[MailState, bool]:
        state, begun = self._found(attempt, mail), _sending_begun(attempt)
        if attempt.may_have_begun and (begun is None if state is None else state.is_draft):
            attempt.context.note_nothing_found()
        if state is None:
            if begun is not None:
                # Sent, and now between Drafts and Sent Items: a draft that was not taken would still be there.
                attempt.read_back = True
                return begun, False
            attempt.context.checkpoint()
            state = self._create(attempt, mail)
        elif state.is_draft:
            self._attach_missing(attempt, mail, state)
        if not state.is_draft:
            attempt.read_back = True
            return state, True
        return self._send(attempt, mail, state)

    def _found(self, attempt: MailAttempt, mail: Mail) -> MailState | None:
        """The mail of an earlier attempt: the sent one, or else its draft."""
        if not attempt.may_have_begun:
            return None
        found = self._mail.find_by_job(mail.mailbox, str(attempt.job.effect_id))
        if found:
            return found[0]
        begun = _sending_begun(attempt)
        return self._mail.state(mail.mailbox, begun.id) if begun is not None else None

    def _create(self, attempt: MailAttempt, mail: Mail) -> MailState:
        """The whole draft. What may defer the job comes before anything is made, or keeps what was made."""
        files = self._attachments.open(mail)
        attempt.sizes = [file.size for file in files]
        if not mail.save_to_sent_items:
            attempt.further()
        if mail.original is not None:
            state = self._answers.create(attempt, mail, mail.original)
            self._attachments.attach(attempt, mail.mailbox, state, files, 0)
            return state
        message, job_id = build_message(mail), str(attempt.job.effect_id)
        if files and len(to_bytes(message)) + sum(file.size * 4 // 3 + FILE_FIELDS for file in files) <= CREATE_BYTES:
            message["attachments"] = [build_file(file.attachment, file.content()) for file in files]
            return self._mail.create_draft(mail.mailbox, message, job_id)
        state = self._mail.create_draft(mail.mailbox, message, job_id)
        self._attachments.attach(attempt, mail.mailbox, state, files, 0)
        return state

    def _attach_missing(self, attempt: MailAttempt, mail: Mail, state: MailState) -> None:
        """They are added in order, so their number says which ones a half-made draft has."""
        if not mail.attachments:
            return
        present = self._attachments.count(attempt, mail.mailbox, state)
        if not 0 <= present <= len(mail.attachments):
            raise RejectedError(
                f"the draft {state.id} has {present} attachments and not {len(mail.attachments)}: somebody "
                "has changed it; send it by hand, or delete it and redrive the job"
            )
        files: list[File] = self._attachments.open(mail)
        attempt.sizes = [file.size for file in files]
        self._attachments.attach(attempt, mail.mailbox, state, files, present)

    def _send(self, attempt: MailAttempt, mail: Mail, state: MailState) -> tuple[MailState, bool]:
        sending = {"sending": state.id, "internet_message_id": state.internet_message_id}
        attempt.keep(**sending)
        attempt.context.checkpoint()
        attempt.context.note(**sending)
        try:
            self._mail.send_draft(mail.mailbox, state.id)
        except GraphError as error:
            if not attempt.may_have_begun or error.status not in _MAYBE_SENT:
                raise _with_draft(error, sending) from error
            # An earlier attempt may have sent this draft: then Graph refuses to send it again.
            now = self._mail.state(mail.mailbox, state.id)
            if now is None or now.is_draft:
                raise UncertainError(f"{error}; an earlier attempt may have sent it", details=sending) from error
            attempt.read_back = True
            return now, True
        except GraphFailure as failure:
            raise _with_draft(failure, sending) from failure
        return self._confirm(attempt, mail, state)

    def _confirm(self, attempt: MailAttempt, mail: Mail, state: MailState) -> tuple[MailState, bool]:
        """Look once at what Graph made of it. It has taken the mail, so nothing that happens here undoes that."""
        try:
            now = self._mail.state(mail.mailbox, state.id)
        except GraphFailure as failure:
            attempt.context.note(not_confirmed=str(failure))
            return state, False
        return (now, True) if now is not None and not now.is_draft else (state, False)

    def _put_away(self, attempt: MailAttempt, mail: Mail, state: MailState) -> None:
        """Out of Sent Items. Not deleted for good: the mail is what tells a later attempt that it was sent."""
        try:
            self._mail.move(mail.mailbox, state.id, DELETED_ITEMS)
        except GraphFailure as failure:
            attempt.context.note(still_in_sent_items=str(failure))


def build(services: Services) -> Handler:
    """The handler, from what bootstrap has built."""
    attachments = MailAttachments(services.mail, services.uploads, services.upload_urls, lambda: services.blobs)
    return OutlookOutbound(services.mail, attachments, services.communications)


def _with_draft(failure: GraphFailure, sending: dict[str, Any]) -> Exception:
    error = job_error(failure, send=True)
    if isinstance(error, UncertainError):
        error.details.update(sending)
    return error


def _sending_begun(attempt: MailAttempt) -> MailState | None:
    """The mail whose sending an earlier attempt began, when its last word does not say that Graph refused it."""
    job = attempt.job
    draft = job.progress.get("sending") if job.progress else None
    if job.progress is None or not isinstance(draft, str):
        return None
    if not job.attempts or job.attempts[-1].error_class not in MAY_HAVE_TAKEN_EFFECT:
        return None
    message_id = job.progress.get("internet_message_id")
    return MailState(draft, False, message_id if isinstance(message_id, str) else None, None, None)


def _size(attachment: Attachment, sizes: list[int], number: int) -> int | None:
    """In bytes; of a blob that an earlier attempt has sent, nobody looks it up again."""
    if sizes:
        return sizes[number]
    return None if attachment.blob is not None else attachment.carried


def _communication(job: Job, mail: Mail, state: MailState, sizes: list[int]) -> Communication:
    recipients = [r.address for r in (*mail.to, *mail.cc, *mail.bcc)] or state.recipients  # a reply may name none
    return Communication(
        direction="out",
        channel="outlook",
        external_id=state.id,
        thread_id=state.conversation_id,
        sender=mail.from_.address,
        recipients=list(dict.fromkeys(recipients)),
        subject=mail.subject if mail.subject is not None else state.subject,
        body=mail.body,
        body_type=mail.body_type,
        text=plain_text(mail.body) if mail.body_type == "html" else mail.body.strip(),
        occurred_at=None,
        internet_message_id=state.internet_message_id,
        account=mail.mailbox,
        attachments=[
            AttachmentRecord(
                f"sent-{number}", a.name, a.content_type, _size(a, sizes, number), is_inline=a.is_inline, kind="file"
            )
            for number, a in enumerate(mail.attachments)
        ],
        job_id=job.id,
        correlation_id=job.correlation_id,
        raw={"importance": mail.importance, "headers": mail.headers, "webUrl": state.web_link},
    )
