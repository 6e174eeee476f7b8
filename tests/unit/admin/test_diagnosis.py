"""What the diagnosis says of a job: for each class and state what it is, why, what may be told and what helps now."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from local.q.diagnosis import COMMANDS, what_now
from shared.admin.diagnosis import Circumstances, diagnose
from shared.admin.diagnosis.labels import label
from shared.admin.diagnosis.words import clock
from shared.admin.models.diagnosis import Action, Diagnosis, Effect
from shared.engine.job import FOUND_NOTHING, Attempt, ErrorClass, JobRecord, JobState
from shared.handlers.mail_payload import Mail

NOW = datetime(2026, 11, 25, 14, 0, 0, tzinfo=UTC)
JOB = UUID("01a21058-069c-7ab2-8759-0bc0b58b4726")
OTHER = UUID("01a21058-069c-7ab2-8759-0bc0b58b4727")
LETTER = UUID("01a21058-069c-7ab2-8759-0bc0b58b4728")
CHAT = "19:gone@thread.v2"
ACCOUNT = "queue@fleet.example"
LETTER_ROW = {
    "id": LETTER, "redriven_at": None, "redriven_by": None, "redriven_job_id": None, "discarded_at": None,
    "discarded_by": None,
}  # fmt: skip


def attempt(
    number: int, kind: ErrorClass | None, status: int | None = None, message: str = "m", **details: Any
) -> Attempt:
    if status is not None:
        details["failed_call"] = {"method": "POST", "path": "/chats/{id}/messages", "status": status}
    at = NOW - timedelta(seconds=60 - number * 10)
    outcome = "retry" if kind else "completed"
    return Attempt(number, at, at + timedelta(seconds=4), "worker-1", outcome, kind, message if kind else None, details)


def job(state: JobState, *attempts: Attempt, **changes: Any) -> JobRecord:
    made = JobRecord(
        JOB, "teams-outbound", state, 5, len(attempts), {"chatId": CHAT, "content": "late"}, NOW - timedelta(minutes=5),
        NOW - timedelta(minutes=5), attempts, limit_key=f"chat:{CHAT}",
    )  # fmt: skip
    return replace(made, **changes)


def dead(kind: ErrorClass, *attempts: Attempt, **changes: Any) -> JobRecord:
    return job(JobState.DEAD, *attempts, finished_at=NOW, error_class=kind, error_message="m", **changes)


def around(**facts: Any) -> Circumstances:
    return Circumstances(NOW, accounts=(ACCOUNT,), **facts)


def told(one: JobRecord, **facts: Any) -> Diagnosis:
    if one.state is JobState.DEAD:
        facts.setdefault("letter", LETTER_ROW)
    return diagnose(one, around(**facts))


def actions(found: Diagnosis) -> list[Action]:
    return [step.action for step in found.next if step.action is not None]


def text(found: Diagnosis) -> str:
    return " ".join([found.headline, *found.why, *(step.text for step in found.next)])


MAIL = {
    "from": "dispatch@fleet.example",
    "to": ["ann@x.example", {"address": "ben@x.example"}],
    "subject": "s",
    "body": "b",
}


def mail(state: JobState, *attempts: Attempt, **changes: Any) -> JobRecord:
    return job(
        state, *attempts, queue="outlook-outbound", payload=MAIL, limit_key="mailbox:dispatch@fleet.example", **changes
    )


# ---------------------------------------------------------------- every class and state


@pytest.mark.parametrize("kind", list(ErrorClass))
@pytest.mark.parametrize("attempts", [0, 3])
def test_every_class_says_what_why_and_what_now(kind: ErrorClass, attempts: int) -> None:
    found = told(dead(kind, *(attempt(n + 1, kind) for n in range(attempts))))
    assert found.headline and found.tell and found.label == "dead" and found.tone == "bad"
    assert {Action.REDRIVE, Action.DISCARD} <= set(actions(found))
    assert next(step.target for step in found.next if step.action is Action.DISCARD) == str(LETTER)


@pytest.mark.parametrize("state", list(JobState))
@pytest.mark.parametrize(
    "queue", ["teams-outbound", "outlook-outbound", "notifications", "sync", "dead-letter", "gone"]
)
def test_every_state_of_every_queue_has_an_answer(state: JobState, queue: str) -> None:
    found = told(job(state, queue=queue, payload={}, finished_at=NOW, leased_by="w", error_class=ErrorClass.UNKNOWN))
    assert found.headline and found.tell and found.next
    for line in [found.headline, found.tell, *found.why, *(step.text for step in found.next)]:
        assert "None" not in line and "{" not in line


def test_every_action_has_a_command_and_a_way_in_the_dashboard() -> None:
    assert set(COMMANDS) == {action.value for action in Action}
    script = (Path(__file__).parents[3] / "shared" / "web" / "views" / "now.js").read_text("utf-8")
    keys = set(re.findall(r'^  "?([a-z-]+)"?: (?:\(|\{)', script, re.MULTILINE))
    assert keys == {action.value for action in Action}


def test_cli_prints_the_order_that_made_it_to_be_corrected() -> None:
    refused = dead(ErrorClass.VALIDATION, attempt(1, ErrorClass.VALIDATION, 404))
    payload = {"chatId": CHAT, "content": "it's late", "mentions": []}
    found = told(replace(refused, payload=payload)).model_dump(mode="json", by_alias=True)
    lines = what_now({"diagnosis": found, "priority": 2, "correlationId": None})
    assert lines[0].endswith(
        """./dev q enqueue teams-outbound chatId=19:gone@thread.v2 'content=it'"'"'s late' 'mentions:=[]'"""
        " --priority 2"
    )
    assert lines[-1] == "To whoever asks: not sent."
    found["next"][0]["payload"] = None  # as it is shown to who may not read it
    assert what_now({"diagnosis": found})[0].endswith("./dev q enqueue teams-outbound")


# ---------------------------------------------------------------- may it have been sent? (findings 2, 11, 22)


def test_a_lost_answer_that_nobody_could_look_for_may_have_been_sent() -> None:
    lost, blind = attempt(1, ErrorClass.UNCERTAIN), attempt(2, ErrorClass.NETWORK, 500)
    found = told(dead(ErrorClass.UNCERTAIN, lost, blind))
    assert found.effect is Effect.POSSIBLE and found.headline.startswith("May have been sent")
    assert found.tell == "may have been sent; a redrive looks into the chat first and sends only what is not there"
    assert "the answer to attempt 1 was lost at 2026-11-25 13:59:10 UTC" in text(found)
    assert actions(found)[0] is Action.REDRIVE


def test_an_outage_whose_looks_found_nothing_says_so() -> None:
    looked: dict[str, Any] = {FOUND_NOTHING: True}
    failed = [attempt(n, ErrorClass.UNCERTAIN, 503, **looked) for n in range(1, 7)]
    found = told(dead(ErrorClass.UNCERTAIN, *failed))
    assert found.headline == "Most likely not sent: Graph answered 503 Service Unavailable, until the retries ended"
    assert "Graph failed within 54 s: 6 times Graph answered 503 Service Unavailable." in found.why
    assert found.tell.startswith("most likely not sent")
    assert "found nothing" in text(found)


def test_an_unreachable_graph_has_sent_nothing() -> None:
    found = told(dead(ErrorClass.NETWORK, *(attempt(n, ErrorClass.NETWORK) for n in range(1, 7))))
    assert (found.effect, found.tell) == (Effect.NONE, "not sent")
    assert found.headline == "Not sent: Graph could not be reached, until the retries ended"


def test_a_redrive_of_one_that_may_have_been_sent_may_have_been_sent() -> None:
    again = dead(ErrorClass.NETWORK, attempt(1, ErrorClass.NETWORK))
    assert told(again, earlier=(ErrorClass.UNCERTAIN,)).effect is Effect.POSSIBLE
    assert told(again, earlier=(ErrorClass.NETWORK,)).effect is Effect.NONE


def test_a_lost_worker_counts_its_share_and_may_have_sent() -> None:
    ends = [ErrorClass.WORKER_LOST] * 6 + [ErrorClass.TIMEOUT] * 3
    found = told(dead(ErrorClass.WORKER_LOST, *(attempt(n, kind) for n, kind in enumerate(ends, 1))))
    assert "6 of 9 attempts ended because the worker died or stood still" in text(found)
    assert "3 times no answer came in time" in text(found)
    assert found.effect is Effect.POSSIBLE and actions(found)[0] is Action.LOOK_AT_LOGS


def test_a_sync_sends_nothing() -> None:
    found = told(dead(ErrorClass.WORKER_LOST, attempt(1, ErrorClass.WORKER_LOST), queue="sync", payload={}))
    assert (found.effect, found.tell) == (Effect.NONE, "not done")


def test_a_workflow_cannot_be_asked() -> None:
    found = told(dead(ErrorClass.UNCERTAIN, attempt(1, ErrorClass.UNCERTAIN, sender="workflow")))
    assert "Look into the chat. Not there: redrive it." in text(found) and "nobody can ask a workflow" in found.tell


# ---------------------------------------------------------------- refusals (findings 1, 6)


def test_a_chat_that_is_gone_is_named_and_redrive_is_not_the_first_step() -> None:
    found = told(dead(ErrorClass.VALIDATION, attempt(1, ErrorClass.VALIDATION, 404)))
    assert found.headline == f"Not sent: the chat {CHAT} does not exist"
    assert actions(found)[:2] == [Action.ENQUEUE_ANEW, Action.DISCARD]


FORBIDDEN = [
    ("User is not a member: it is not allowed.", f"{ACCOUNT} is not a member of the chat {CHAT}", "add it there"),
    ("AclCheckFailed-Send message", f"{ACCOUNT} is not a member of the chat {CHAT}", "add it there"),
    ("Failed to get license information for the user", f"{ACCOUNT} has no licence for Teams", "licence"),
    ("Missing role permissions on the request", "a permission lacks", "which permission lacks"),
    ("Forbidden", "Graph refused it (403)", "add it there"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "headline", "step"), FORBIDDEN)
def test_a_refusal_names_who_lacks_what(message: str, headline: str, step: str) -> None:
    found = told(dead(ErrorClass.AUTH, attempt(1, ErrorClass.AUTH, 403, message, sender="account")))
    assert found.headline == f"Not sent: {headline}"
    assert step in text(found)


def test_a_mailbox_that_a_policy_closes_is_named() -> None:
    refused = attempt(1, ErrorClass.AUTH, 403, "Access to OData is disabled", code="ErrorAccessDenied")
    found = told(mail(JobState.DEAD, refused, error_class=ErrorClass.AUTH, finished_at=NOW))
    assert found.headline == "Not sent: the application may not use the mailbox dispatch@fleet.example"
    assert "access policy" in text(found)


# ---------------------------------------------------------------- dead letters that are dealt with (findings 5, 7, 12)


def test_a_redriven_one_leads_to_the_job_that_it_runs_as() -> None:
    letter = LETTER_ROW | {"redriven_at": NOW, "redriven_by": "key 1", "redriven_job_id": OTHER}
    chain = [{"relation": "redrivenAs", "id": OTHER, "queue": "teams-outbound", "state": "completed"}]
    found = told(dead(ErrorClass.NETWORK), letter=letter, related=chain)
    assert found.headline == f"Redriven at 2026-11-25 14:00:00 UTC by key 1 as job {OTHER}: completed"
    assert (found.label, actions(found), found.effect) == ("dead, redriven", [Action.SHOW_JOB], Effect.DONE)


def test_a_discarded_one_asks_for_nothing() -> None:
    found = told(dead(ErrorClass.NETWORK), letter=LETTER_ROW | {"discarded_at": NOW, "discarded_by": "key 1"})
    assert (found.label, actions(found)) == ("dead, discarded", [])


def test_a_dead_one_of_an_ordering_key_says_how_many_wait_behind_it() -> None:
    one = dead(ErrorClass.NETWORK, lane="teams-outbound:order:truck-7")
    assert "3 jobs of ordering key truck-7 wait behind it" in text(told(one, holder=JOB, behind=3))
    assert "truck-7" not in text(told(one, holder=OTHER, behind=3))


def test_a_dependency_is_led_to_and_a_redrive_warned_of() -> None:
    one = replace(dead(ErrorClass.DEPENDENCY), error_message=f"job {OTHER}, which it depends on, ended as dead")
    found = told(one, dependency_state=JobState.DEAD)
    assert (found.next[0].action, found.next[0].target) == (Action.SHOW_JOB, str(OTHER))
    assert "although that job has not succeeded" in text(found)
    assert "although" not in text(told(one, dependency_state=JobState.COMPLETED))


# ---------------------------------------------------------------- deadlines (finding 19)


@pytest.mark.parametrize(
    ("held", "said"),
    [
        ({"by": "pause"}, "the queue teams-outbound was paused by ann at 2026-11-25 13:00:00 UTC"),
        ({"by": "key", "key": f"chat:{CHAT}", "blockedUntil": "2026-11-25T14:30:00Z"}, "which took no more then (429)"),
        ({"by": "jobs"}, "it waited for other jobs"),
        ({"by": "later", "reason": "no token"}, "it was put off: no token"),
        ({"by": "workers"}, "no worker of teams-outbound was free in time"),
    ],
)  # fmt: skip
def test_a_deadline_says_why_it_had_not_started(held: dict[str, Any], said: str) -> None:
    one = dead(ErrorClass.EXPIRED, expires_at=NOW, result={"heldBack": held})
    assert said in text(told(one, paused_by="ann", paused_at=NOW - timedelta(hours=1)))


def test_a_deadline_during_retries_says_that_it_failed() -> None:
    found = told(dead(ErrorClass.EXPIRED, *(attempt(n, ErrorClass.NETWORK, 502) for n in (1, 2, 3)), expires_at=NOW))
    assert (
        "It failed 3 times: 3 times Graph answered 502 Bad Gateway. The next try would have been too late." in found.why
    )


# ---------------------------------------------------------------- jobs that have not ended (findings 3, 4, 5, 10, 22)


def test_a_parked_one_names_the_account_and_offers_no_run_now() -> None:
    found = told(
        job(JobState.SCHEDULED, run_at=NOW + timedelta(minutes=11)),
        identity=ACCOUNT, identity_since=NOW, alert_id=OTHER, alert_reason="it is not signed in.",
    )  # fmt: skip
    assert (found.headline, found.label) == (f"Parked: no token for {ACCOUNT}", "parked")
    assert actions(found) == [Action.SIGN_IN, Action.SHOW_ALERT] and found.accounts == [ACCOUNT]


def test_a_throttled_one_waits_until_the_time_that_graph_asked_for() -> None:
    until = NOW + timedelta(minutes=4)
    own = job(JobState.SCHEDULED, attempt(1, ErrorClass.RATE_LIMIT, 429), run_at=until)
    found = told(own, key_blocked_until=until)
    assert found.headline == "Waits: Graph asked to wait until 2026-11-25 14:04:00 UTC for this chat (429)"
    assert Action.RETRY not in actions(found) and "answered 429 to its last attempt" in text(found)
    other = told(job(JobState.WAITING), waits_at=f"chat:{CHAT}", key_blocked_until=until)
    assert other.headline == found.headline and "to another job" in text(other)


def test_a_retry_says_what_failed_and_when_it_tries_again() -> None:
    found = told(job(JobState.SCHEDULED, attempt(1, ErrorClass.NETWORK, 503), run_at=NOW + timedelta(seconds=8)))
    assert found.headline == "Tries again at 2026-11-25 14:00:08 UTC: Graph answered 503 Service Unavailable"
    assert actions(found) == [Action.RETRY]


def test_a_paused_queue_is_said_with_who_and_since_when_and_resumed() -> None:
    facts: dict[str, Any] = {"is_paused": True, "paused_at": NOW, "paused_by": "key 1"}
    for state in (JobState.READY, JobState.SCHEDULED):
        found = told(job(state), **facts)
        assert found.headline == "The queue teams-outbound is paused since 2026-11-25 14:00:00 UTC by key 1"
        assert (found.label, actions(found)) == ("paused", [Action.RESUME_QUEUE])
    waits = told(job(JobState.WAITING), waits_at=f"chat:{CHAT}", **facts)
    assert actions(waits)[-1] is Action.RESUME_QUEUE


def test_one_behind_a_dead_one_of_its_ordering_key_is_blocked_and_names_it() -> None:
    lane = "teams-outbound:order:truck-7"
    facts: dict[str, Any] = {"waits_at": lane, "holder": OTHER, "behind": 3, "holder_since": NOW}
    found = told(job(JobState.WAITING, lane=lane), holder_state=JobState.DEAD, **facts)
    assert found.headline == f"Blocked by dead job {OTHER} since 2026-11-25 14:00:00 UTC" and found.label == "blocked"
    assert (found.next[0].action, found.next[0].target) == (Action.SHOW_JOB, str(OTHER))
    turn = told(job(JobState.WAITING, lane=lane), holder_state=JobState.ACTIVE, **facts)
    assert turn.label == "waits" and "which is active" in turn.headline


def test_one_that_waits_for_jobs_names_them() -> None:
    rows = [{"relation": "dependsOn", "id": OTHER, "queue": "sync", "state": "active"}]
    found = told(job(JobState.WAITING, depends_on=(OTHER,)), waits_at="", related=rows)
    assert found.headline == "Waits for 1 other job to end" and f"{OTHER} (active)" in text(found)


def test_a_lease_that_is_over_is_taken_back_by_the_rescue_timer() -> None:
    running = job(JobState.ACTIVE, leased_by="worker-1", lease_until=NOW - timedelta(seconds=20))
    found = told(running)
    assert (
        "no sign of life: its lease ended at 2026-11-25 13:59:40 UTC" in found.headline
        and "rescue timer takes it back within 30 s" in text(found)
    )
    late = told(replace(running, lease_until=NOW - timedelta(minutes=5)))
    assert actions(late) == [Action.DOCTOR]


# ---------------------------------------------------------------- ended well, or not (findings 12, 13)


def test_a_sent_one_says_what_to_tell() -> None:
    found = told(job(JobState.COMPLETED, finished_at=NOW, result={"outcome": "sent", "message_id": "17"}))
    at = "at 2026-11-25 14:00:00 UTC"
    assert (found.headline, found.tell) == (f"Sent {at}", f"sent {at}, as message 17")
    assert found.why == [f"Graph took it {at} for the chat {CHAT}, as message 17."]


def test_one_that_was_found_again_was_sent_when_its_answer_was_lost() -> None:
    attempts = attempt(1, ErrorClass.NETWORK), attempt(2, ErrorClass.UNCERTAIN), attempt(3, None)
    result = {"outcome": "sent", "message_id": "17"}
    found = told(job(JobState.COMPLETED, *attempts, finished_at=NOW, result=result | {"read_back": True}))
    then = "in attempt 2 of 2026-11-25 13:59:20 UTC"
    assert (found.headline, found.tell) == (f"Sent {then}", f"sent {then}, as message 17")
    assert "found at 2026-11-25 14:00:00 UTC, and not sent twice" in text(found)
    known = result | {"read_back": True, "sent_at": "2026-11-25T13:59:21.989Z"}
    found = told(mail(JobState.COMPLETED, *attempts, finished_at=NOW, result=known))
    assert found.headline == "Sent at 2026-11-25 13:59:21 UTC" and found.tell.startswith("sent at 2026-11-25 13:59:21")
    looking: dict[str, Any] = {FOUND_NOTHING: True}
    looked = *attempts[:2], attempt(3, None, **looking)
    assert told(job(JobState.COMPLETED, *looked, finished_at=NOW, result=result)).headline == (
        "Sent at 2026-11-25 14:00:00 UTC"
    )
    redriven = job(JobState.COMPLETED, attempt(1, None), finished_at=NOW, result=result | {"read_back": True})
    assert told(redriven).headline == "Sent before 2026-11-25 14:00:00 UTC"


def failure(recipient: str, status: str) -> dict[str, Any]:
    return {"recipient": recipient, "status": status, "diagnostic": "d", "reportedAt": NOW.isoformat()}


def test_a_mail_that_came_back_is_no_success() -> None:
    sent = mail(JobState.COMPLETED, finished_at=NOW, result={"outcome": "sent", "internet_message_id": "<a@x>"})
    found = told(sent, failures=[failure("ann@x.example", "5.2.2")])
    assert found.headline == "Sent, but not delivered to 1 of 2" and found.tone == "bad"
    assert "the mailbox is full" in text(found) and "do not send them the whole mail again" in text(found)
    assert "Find the right address" not in text(found)
    assert "Find the right address" in text(told(sent, failures=[failure("ann@x.example", "5.1.1")]))


def test_a_mail_that_came_back_is_enqueued_anew_to_those_who_did_not_get_it() -> None:
    failures = [
        failure("ann@x.example", "5.1.10"),
        failure("ben@x.example", "5.2.2"),
        failure("in@list.example", "4.4.1"),
    ]

    def anew(payload: dict[str, Any], *failed: dict[str, Any]) -> tuple[dict[str, Any], str]:
        """What the step has, and how `./dev q` spells it."""
        sent = replace(mail(JobState.COMPLETED, finished_at=NOW, result={"outcome": "sent"}), payload=payload)
        shown = told(sent, failures=failed).model_dump(mode="json", by_alias=True)
        lines = what_now({"diagnosis": shown, "priority": 5, "correlationId": "trip 7"})
        spelled = next(line for line in lines if "q enqueue" in line).partition("outlook-outbound ")[2]
        return next(step["payload"] for step in shown["next"] if step["payload"]), spelled

    people = {"to": ["Ann@x.example", "eve@x.example"], "cc": [{"address": "ben@x.example"}], "bcc": ["eve@x.example"]}
    found = told(mail(JobState.COMPLETED, result={"outcome": "sent"}), failures=failures)
    assert "anew to the right address of ann@x.example, ben@x.example, in@list.example only." in text(found)
    assert anew({"from": "d@x.example", **people, "subject": "s"}, *failures) == (
        {
            "to": ["CORRECT-ADDRESS of Ann@x.example", "in@list.example"],
            "cc": [{"address": "ben@x.example"}],
            "from": "d@x.example",
            "subject": "s",
        },
        """'to:=["CORRECT-ADDRESS of Ann@x.example", "in@list.example"]' 'cc:=[{"address": "ben@x.example"}]' """
        "from=d@x.example subject=s --priority 5 --correlation-id 'trip 7'",
    )
    with pytest.raises(ValueError, match="to"):
        Mail.model_validate(
            {"from": "d@x.example", "to": ["CORRECT-ADDRESS of Ann@x.example"], "subject": "s", "body": "b"}
        )
    assert anew(people | {"body": "b" * 700}, failures[1])[1] == """'cc:=[{"address": "ben@x.example"}]' …"""
    reply = {"from": "d@x.example", "body": "b", "original": {"messageId": "1", "action": "replyAll"}}
    payload, _ = anew(reply, failures[1])
    assert payload["original"] == {"messageId": "1", "action": "forward"} and payload["to"] == ["ben@x.example"]


def test_a_cancelled_one_that_may_have_been_sent_is_looked_for_before_it_is_enqueued_anew() -> None:
    lost = attempt(1, ErrorClass.UNCERTAIN)
    found = told(job(JobState.CANCELLED, lost, finished_at=NOW))
    assert found.next[0].text.startswith(f"Look into the chat {CHAT} first. Not there, and still wanted: enqueue")
    assert f"may have been sent; look into the chat {CHAT}" in found.tell and "redrive" not in text(found) + found.tell
    mailed = told(mail(JobState.CANCELLED, lost, finished_at=NOW))
    assert "Look into the sent mails of dispatch@fleet.example first" in text(mailed)


def test_a_parked_one_says_that_it_dies_of_its_deadline() -> None:
    waits = job(JobState.SCHEDULED, run_at=NOW + timedelta(hours=1), expires_at=NOW + timedelta(minutes=9))
    found = told(waits, identity="queue@fleet.example", identity_since=NOW, alert_reason="no sign-in", alert_id=OTHER)
    assert found.label == "parked" and "It dies at 2026-11-25 14:09:00 UTC" in text(found)


def test_a_mailbox_whose_reports_nobody_sees_is_said() -> None:
    sent = mail(JobState.COMPLETED, finished_at=NOW, result={"outcome": "sent"})
    assert "dispatch@fleet.example is not watched" in text(told(sent, reports_watched=False))
    assert "No report says that it came back." in text(told(sent, reports_watched=True))
    assert "only if dispatch@fleet.example is watched" in text(told(sent, reports_watched=None))


def test_a_cancelled_one_says_by_whom_or_why() -> None:
    one = job(JobState.CANCELLED, finished_at=NOW)
    assert (
        told(one, orders=[{"action": "job.cancel", "who": "key 1"}]).headline
        == "Cancelled at 2026-11-25 14:00:00 UTC by key 1"
    )
    assert "ann emptied the queue" in told(one, cleared_by="ann").headline
    assert "the application did it" in text(told(one))
    by_job = told(replace(one, result={"reason": f"job {OTHER}, which it depends on, ended as dead"}))
    assert f"since job {OTHER} ended dead" in by_job.headline
    assert (
        f"Replaced at 2026-11-25 14:00:00 UTC by job {OTHER}"
        == told(replace(one, result={"replacedBy": str(OTHER)})).headline
    )


def test_a_note_of_a_dead_letter_is_not_taken_for_the_message() -> None:
    note = job(JobState.COMPLETED, queue="dead-letter", payload={"deadLetterId": str(uuid4())}, finished_at=NOW)
    found = told(note)
    assert actions(found) == [Action.SHOW_LETTER] and "not the message" in found.tell


@pytest.mark.parametrize(
    ("state", "facts", "shown"),
    [
        ("scheduled", {"parked": True, "paused": True}, "parked"),
        ("scheduled", {"paused": True}, "paused"),
        ("scheduled", {}, "retrying"),
        ("waiting", {"waits_at": ""}, "waits for jobs"),
        ("waiting", {"waits_at": "k", "blocked": True}, "blocked"),
        ("waiting", {"waits_at": "k", "closed": True}, "throttled"),
        ("waiting", {"waits_at": "k"}, "waits"),
        ("completed", {"undelivered": 1, "recipients": 2}, "not delivered to 1 of 2"),
        ("completed", {"undelivered": 0}, "completed"),
        ("active", {"paused": True}, "active"),
    ],
)
def test_a_list_says_it_in_the_words_of_the_jobs_page(state: str, facts: dict[str, Any], shown: str) -> None:
    assert label({"state": state, "dead_letter": None, "attempt": 1}, facts) == shown
    assert label({"state": "dead", "dead_letter": "redriven"}, {}) == "dead, redriven"


# ------------------------------------------------------------------ what a second trial found


def test_a_throttled_job_that_dies_before_its_time_is_not_said_to_go_on_by_itself() -> None:
    until = NOW + timedelta(minutes=5)
    late = job(JobState.WAITING, expires_at=NOW + timedelta(minutes=1))
    found = told(late, waits_at=f"chat:{CHAT}", key_blocked_until=until)
    assert found.headline.startswith("Will die of its deadline at ") and found.tone == "bad"
    assert actions(found)[:2] == [Action.ENQUEUE_ANEW, Action.CANCEL] and "by itself" not in text(found) + found.tell


def test_a_throttled_job_runs_when_it_is_due_where_that_is_later() -> None:
    waits = job(JobState.SCHEDULED, run_at=NOW + timedelta(minutes=9))
    found = told(waits, key_blocked_until=NOW + timedelta(minutes=5))
    assert found.headline == (
        "Waits until 2026-11-25 14:09:00 UTC: Graph asked to wait until 2026-11-25 14:05:00 UTC for this chat (429)"
    )
    assert clock(waits.run_at) in found.next[0].text and "before 2026-11-25 14:05:00 UTC." in found.next[0].text


def test_what_a_worker_that_died_was_sending_may_have_been_sent() -> None:
    silent = job(JobState.ACTIVE, leased_by="w", lease_until=NOW - timedelta(seconds=5))
    assert told(silent).tell.startswith("may have been sent")
    running = replace(silent, lease_until=NOW + timedelta(seconds=30))
    assert told(running).tell == "the message is being sent now"


def test_a_queue_that_was_just_resumed_is_not_late() -> None:
    ready = job(JobState.READY)
    assert told(ready).headline.startswith("Ready since ")
    assert told(ready, resumed_at=NOW - timedelta(seconds=2)).headline == "Ready: a worker takes it next"


def test_a_blocked_job_leads_to_the_dead_one_and_redrives_nothing_by_itself() -> None:
    blocked = job(JobState.WAITING, lane="teams-outbound:order:truck-7")
    found = told(blocked, waits_at="teams-outbound:order:truck-7", holder=uuid4(), holder_state=JobState.DEAD, behind=1)
    assert actions(found) == [Action.SHOW_JOB]


def test_whoever_used_its_key_for_another_payload_is_not_told_that_it_was_sent() -> None:
    again = {"action": "job.again", "at": NOW, "who": "key 1", "before": None,
             "after": {"correlationId": "trip-2", "created": False, "otherPayload": True}}  # fmt: skip
    sent = job(JobState.COMPLETED, finished_at=NOW, result={"outcome": "sent"}, idempotency_key="late-11")
    found = told(sent, orders=[again])
    assert "not what trip-2 asked for" in found.headline and "what trip-2 asked for was not sent" in found.tell
    assert "late-11" in found.why[0] and actions(found) == [Action.ENQUEUE_ANEW]
    assert found.next[-1].payload is None, "what the other caller wanted is not kept: this payload was sent already"
    same = again | {"after": {"correlationId": "trip-2", "created": False, "otherPayload": False}}
    assert "trip-2" not in text(told(sent, orders=[same]))


def test_of_a_workflow_a_whole_sentence_is_told_while_it_tries_again() -> None:
    lost = attempt(1, ErrorClass.UNCERTAIN, sender="workflow")
    found = told(job(JobState.SCHEDULED, lost, run_at=NOW + timedelta(minutes=1)))
    assert found.tell.startswith("may have been sent; nobody can ask a workflow: unless the settings say otherwise it")
