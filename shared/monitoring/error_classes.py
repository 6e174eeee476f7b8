"""What a class of failure means, and what a person does about it: for lists and alerts. A job's page says it of the job
(shared.admin.diagnosis)."""

from __future__ import annotations

from dataclasses import dataclass

from shared.engine.job import ErrorClass


@dataclass(frozen=True, slots=True)
class Advice:
    """`redrive_helps`: False where the same payload would only fail again."""

    meaning: str
    remedy: str
    redrive_helps: bool = True


BY_CLASS: dict[ErrorClass, Advice] = {
    ErrorClass.VALIDATION: Advice(
        "What was asked is wrong, and stays wrong.",
        "Correct it where it was sent from and enqueue anew. A redrive fails again: discard it.",
        redrive_helps=False,
    ),
    ErrorClass.AUTH: Advice(
        "It was refused for who we are, even with a new token.",
        "The job says what lacks: a permission, its consent, a licence, the account's place in the chat. Then redrive.",
    ),
    ErrorClass.RATE_LIMIT: Advice(
        "The other side was too busy, longer than the retries lasted.",
        "Redrive later, and slowly (a rate). If it keeps on, lower the queue's limits.",
    ),
    ErrorClass.NETWORK: Advice(
        "The other side was away, longer than the retries lasted.", "See whether it is back. Then redrive."
    ),
    ErrorClass.TIMEOUT: Advice("The other side did not answer in time.", "See whether it is back. Then redrive."),
    ErrorClass.UNCERTAIN: Advice(
        "It may have been sent: the answer was lost, and nobody could tell.",
        "Redrive when the other side is back: where it can be looked for, a redrive looks first; the job says so.",
    ),
    ErrorClass.UNKNOWN: Advice(
        "A fault in the handler: it may have been sent.",
        "Read the error and the logs with the correlation id. Have it mended, then redrive.",
    ),
    ErrorClass.WORKER_LOST: Advice(
        "Its worker ended in the middle of it: it may have been sent.",
        "Look at that worker's logs (memory, time), then redrive; the job says whether a redrive looks first.",
    ),
    ErrorClass.EXPIRED: Advice("It was not done when its time was over.", "Redrive only what is still wanted."),
    ErrorClass.DEPENDENCY: Advice(
        "A job that it waited for did not succeed.", "Look at that job first. Then redrive this one."
    ),
}
#: A message in a storage queue that is no job.
FOREIGN = Advice(
    "It is not one of our messages.", "Find its sender; there is nothing to redrive. Discard it.", redrive_helps=False
)


def advice(error_class: object, *, foreign: bool = False) -> Advice | None:
    """Of a class by its name; None of one that is not known."""
    if foreign:
        return FOREIGN
    return next((told for known, told in BY_CLASS.items() if known == error_class), None)
