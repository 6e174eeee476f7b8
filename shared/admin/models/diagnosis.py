"""What a job's state comes from and what somebody does about it, as the dashboard and `./dev q show` say it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from pydantic import Field

from shared.admin.models.base import Model


class Action(StrEnum):
    """What a step does. Its target is a job for redrive, retry, cancel, show-job and look-at-logs, a dead letter for
    discard and show-letter, a queue for resume-queue, show-limits and enqueue-anew, an account for sign-in, an alert
    for show-alert; doctor and show-subscriptions have none."""

    REDRIVE = "redrive"
    DISCARD = "discard"
    RETRY = "retry"
    CANCEL = "cancel"
    RESUME_QUEUE = "resume-queue"
    SIGN_IN = "sign-in"
    SHOW_JOB = "show-job"
    SHOW_LETTER = "show-letter"
    SHOW_ALERT = "show-alert"
    SHOW_LIMITS = "show-limits"
    SHOW_SUBSCRIPTIONS = "show-subscriptions"
    ENQUEUE_ANEW = "enqueue-anew"
    LOOK_AT_LOGS = "look-at-logs"
    DOCTOR = "doctor"


class Effect(StrEnum):
    """What the job has done outside: nothing, perhaps something, or what was asked."""

    NONE = "none"
    POSSIBLE = "possible"
    DONE = "done"


class Step(Model):
    """Something to do. Without an action it is done elsewhere, or there is nothing to do."""

    text: str
    action: Action | None = None
    target: str | None = None
    payload: dict[str, Any] | None = Field(
        None, description="what to enqueue anew, as far as it is known; what was wrong is to be corrected in it"
    )


class Diagnosis(Model):
    """What it is, why, and what to do now: the best step first. `accounts` are service accounts that the texts name."""

    label: str = Field(description="a word or two for lists: dead, parked, not delivered to 1 of 2 …")
    tone: Literal["good", "bad", "waits", "plain"]
    headline: str
    why: list[str]
    next: list[Step]
    tell: str = Field(description="what one may tell whoever asks for the message")
    effect: Effect
    accounts: list[str] = Field(default_factory=list)
