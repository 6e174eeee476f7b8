"""Replies and forwards: Graph makes the draft, with the thread and the quoted text, and we make it ours, once.

Graph's draft cannot carry our mark from the start, so there are two steps, each of which can be found again:
1. The draft is made with a placeholder as its comment, which holds the job's id. A draft whose answer was lost is
   known by it, among the drafts of the original's conversation.
2. One change puts our text in the place of the placeholder, and sets the mark with it. From then on the draft is
   found as every other mail of ours, and is never changed again.
"""

from __future__ import annotations

from typing import Any

from shared.graph.errors import AnswerLost
from shared.graph.mail import MailClient, MailState
from shared.handlers.mail_attempt import MailAttempt
from shared.handlers.mail_message import answer_changes, build_answer
from shared.handlers.mail_payload import Mail, Original
from shared.handlers.payload_fields import text_of


class AnswerDrafts:
    """Makes the drafts of replies and forwards."""

    def __init__(self, mail: MailClient) -> None:
        self._mail = mail

    def create(self, attempt: MailAttempt, mail: Mail, original: Original) -> MailState:
        """The draft, ours, without our attachments. Raises GraphFailure, LimitReachedError."""
        placeholder = f"fleet-queue-{attempt.job.effect_id}"
        draft = self._begun(attempt, mail, original, placeholder) if attempt.may_have_begun else None
        if draft is None:
            attempt.further()
            draft = self._mail.create_answer(
                mail.mailbox, original.message_id, original.action, build_answer(mail, placeholder)
            )
        draft_id = text_of(draft.get("id"))
        if not draft_id:
            raise AnswerLost("Graph's answer is no message")
        foreign = 0
        if mail.attachments:
            attempt.further(draft_id)
            foreign = len(self._mail.attachments(mail.mailbox, draft_id))
        attempt.context.checkpoint()
        changes = answer_changes(mail, draft.get("body") or {}, placeholder)
        return self._mail.claim_answer(mail.mailbox, draft_id, changes, str(attempt.job.effect_id), foreign)

    def _begun(self, attempt: MailAttempt, mail: Mail, original: Original, placeholder: str) -> dict[str, Any] | None:
        """The draft of an attempt that ended between the two steps."""
        attempt.further()
        known = self._mail.state(mail.mailbox, original.message_id)
        if known is None or known.conversation_id is None:
            return None
        attempt.further()
        for draft in self._mail.drafts_of(mail.mailbox, known.conversation_id):
            body = draft.get("body")
            if isinstance(body, dict) and placeholder in text_of(body.get("content")):
                return draft
        return None
