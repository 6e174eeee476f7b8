"""Messages to the operator, as jobs on whichever ways are set: Teams, mail, and a signed webhook."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shared.engine.job import HIGHEST_PRIORITY, NewJob
from shared.handlers.services import Operator

#: Marks the operator's notices, so that one that dies is not told by another one.
NOTICE = "operator-notice"
LONGEST_TITLE = 140
LONGEST_BODY = 4000


def tell(
    operator: Operator, key: str, title: str, text: str, *, link: str | None, event: str, facts: Mapping[str, Any]
) -> list[NewJob]:
    """One job for each way; the same `key` again makes the same jobs. `event` and `facts` are for the webhook, `link`
    leads to what it is about."""
    text = f"{text}\n\nSee it: {link}" if link else text
    jobs = []
    if operator.chat_id:
        content = {"chatId": operator.chat_id, "content": f"{title}\n{text}", "contentType": "text"}
        jobs.append(notice("teams-outbound", content, key))
    if operator.mail_from and operator.mail_to:
        jobs.append(notice("outlook-outbound", mail(operator, title, text, "text"), key))
    if operator.endpoint:
        url = {"url": link} if (link or "").startswith("https://") else {}
        told = {"title": title[:LONGEST_TITLE], "body": text[:LONGEST_BODY], "type": event, "data": dict(facts)}
        jobs.append(notice("notifications", {"channel": "webhook", "endpoint": operator.endpoint, **told, **url}, key))
    return jobs


def mail(operator: Operator, subject: str, body: str, body_type: str) -> dict[str, Any]:
    """A mail to the operator, as a payload of outlook-outbound."""
    return {
        "from": operator.mail_from,
        "to": [operator.mail_to],
        "subject": subject,
        "body": body,
        "bodyType": body_type,
    }


def notice(queue: str, payload: dict[str, Any], key: str) -> NewJob:
    """A job that no dead letter of its own is told of (shared/handlers/dead_letter.py)."""
    name = f"{NOTICE}:{key}"
    return NewJob(queue, payload, HIGHEST_PRIORITY, idempotency_key=name, correlation_id=name)
