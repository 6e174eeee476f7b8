"""Dead letters: raise the alert, keep by whom the job is found, and tell the operator when the alert is a new one."""

from __future__ import annotations

import logging
from uuid import UUID

from shared.engine.context import Context, Handler
from shared.engine.job import Completed, Job, NewJob
from shared.handlers.operator_notices import NOTICE, tell
from shared.handlers.payload_fields import Payload
from shared.handlers.services import Alerts, DeadLetter, LetterNames, Operator, Services

log = logging.getLogger(__name__)

LONGEST_REASON = 500


class DeadLetterReference(Payload):
    """Which dead letter to handle: an id of `dead_letter_queue`."""

    dead_letter_id: UUID


class DeadLetterHandler:
    """Raises the alert of a dead letter once; running again changes nothing and gives the same notices."""

    def __init__(self, alerts: Alerts, names: LetterNames, operator: Operator) -> None:
        self._alerts = alerts
        self._names = names
        self._operator = operator

    def __call__(self, job: Job, payload: DeadLetterReference, context: Context) -> Completed | None:
        letter = self._alerts.dead_letter(payload.dead_letter_id)
        if letter is None:
            context.note(dead_letter="it is no longer kept")
            return None
        opened = self._alerts.raise_alert(letter)
        self._names.keep(letter)
        log.error(
            "dead_letter.raised",
            extra={
                "dead_letter_id": str(letter.id),
                "job_id": str(letter.job_id) if letter.job_id else None,
                "queue": letter.queue,
                "error_class": letter.error_class,
                "error": letter.message,
                "alert_opened": opened,
                "correlation_id": job.correlation_id,
            },
        )
        # A dead job hands its correlation id on to the job that tells of it.
        is_own_notice = (job.correlation_id or "").startswith(NOTICE)
        if not opened or is_own_notice:
            return None
        return Completed(follow_ups=tuple(notices(letter, self._operator)))


def notices(letter: DeadLetter, operator: Operator) -> list[NewJob]:
    """The jobs that tell the operator, on whichever ways are set."""
    facts = {
        "deadLetterId": str(letter.id),
        "jobId": str(letter.job_id) if letter.job_id else None,
        "queue": letter.queue,
        "errorClass": letter.error_class,
    }
    title = f"Dead letter in {letter.queue} ({letter.error_class})"
    link = operator.link(f"dead-letters/{letter.id}")
    return tell(
        operator, str(letter.id), title, notice_text(letter), link=link, event="dead-letter.raised", facts=facts
    )


def notice_text(letter: DeadLetter) -> str:
    """What a person needs to know, and what to do next."""
    what = f"Job {letter.job_id}" if letter.job_id else "A message that is no job"
    return "\n".join((
        f"{what} in the queue {letter.queue} ended as a dead letter.",
        f"Error class: {letter.error_class}",
        f"Reason: {letter.message[:LONGEST_REASON]}",
        f"Dead letter: {letter.id}",
        "",
        f"./dev q show {letter.id} and the dashboard say what it means and what to do.",
        *(["When its cause is mended, redrive it there."] if letter.job_id else []),
        "More dead letters of this kind are counted in the alert and not told one by one.",
    ))  # fmt: skip


def build(services: Services) -> Handler:
    return DeadLetterHandler(services.alerts, services.letter_names, services.operator)
