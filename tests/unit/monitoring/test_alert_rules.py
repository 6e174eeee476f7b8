"""What opens an alert, what keeps it open, and what ends it: pure, minute by minute."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.engine.job import ErrorClass, NewJob
from shared.handlers.services import Operator
from shared.monitoring.alerts import (
    CALM,
    LONGEST_CALM,
    Figures,
    Judgement,
    Reading,
    ToldAlert,
    Watched,
    calm_needed,
    judge,
    readings,
)
from shared.monitoring.error_classes import BY_CLASS
from shared.monitoring.meaning import FAMILIES, Subject, explain
from shared.monitoring.notices import Notices
from shared.monitoring.rules import RULES, TIMERS, Rule, Threshold, ThresholdError, check, threshold_of
from shared.monitoring.statistics import Activity, QueueNow
from shared.postgres.alert_board import OWNED

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
DEAD = RULES["dead-letters"]


class Minutes:
    """One key over time; `open` is the level of its alert, `opened` how often it opened."""

    def __init__(self, rule: Rule = DEAD) -> None:
        self.rule = rule
        self.now = NOW
        self.watched = Watched()
        self.open: str | None = None
        self.opened: list[datetime] = []

    def see(self, value: float | None, minutes: int = 1) -> str | None:
        for _ in range(minutes):
            found = [] if value is None else [Reading(self.rule, "mail", value)]
            for judgement in judge(found, {self.rule.key("mail"): self.watched}, {}, self.now):
                self._apply(judgement)
            self.now += MINUTE
            lately = sum(at > self.now - timedelta(hours=2) for at in self.opened)
            self.watched = replace(self.watched, opened_lately=lately)
        return self.open

    def _apply(self, judgement: Judgement) -> None:
        if judgement.resolve:
            self.open = None
        elif judgement.level is not None:
            if self.open is None:
                self.opened.append(self.now)
            self.open = judgement.level
        self.watched = judgement.after


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
def test_an_alert_opens_above_its_threshold_and_escalates(rule: Rule) -> None:
    minutes = Minutes(rule)
    warning, critical = rule.threshold.warning, rule.threshold.critical
    assert warning is not None and critical is not None
    assert minutes.see(warning, 5) is None, "at the threshold nothing is wrong yet"
    wait = rule.after // MINUTE
    for _ in range(wait):
        assert minutes.see(warning * 1.01) is None
    assert minutes.see(warning * 1.01) == "warning"
    assert minutes.see(critical * 1.01) == "critical"
    assert minutes.see(warning * 1.01) == "warning"
    assert minutes.see(0, CALM // MINUTE) == "warning"
    assert minutes.see(0) is None
    assert len(minutes.opened) == 1


def test_an_alert_that_opens_after_a_while_starts_again_when_it_is_calm_in_between() -> None:
    minutes = Minutes(RULES["backlog"])
    for value in (5000, 0, 5000, 0, 5000, 0):
        assert minutes.see(value) is None


def test_an_alert_that_flaps_stays_open() -> None:
    minutes = Minutes()
    for _ in range(60):
        minutes.see(51)
        minutes.see(0, 4)
    assert len(minutes.opened) == 1
    minutes.see(0, 10)
    assert minutes.open is None


def test_an_alert_that_comes_back_needs_longer_each_time() -> None:
    assert [calm_needed(n) // MINUTE for n in (0, 1, 2, 3, 4, 5, 50)] == [5, 5, 10, 20, 40, 60, 60]
    minutes = Minutes()
    for _ in range(24 * 6):
        minutes.see(51)
        minutes.see(0, 9)
    assert len(minutes.opened) <= 48, "ten times a day at most 144"
    assert timedelta(hours=1) == LONGEST_CALM


def test_an_alert_whose_value_is_gone_resolves_like_a_calm_one() -> None:
    minutes = Minutes()
    minutes.see(51)
    assert minutes.see(None, CALM // MINUTE) == "warning"
    assert minutes.see(None) is None


@given(st.lists(st.one_of(st.none(), st.floats(0, 1000)), max_size=200))
def test_an_alert_is_open_while_its_value_is_too_high_and_never_without_a_cause(values: list[float | None]) -> None:
    minutes, last_broken = Minutes(), None
    for index, value in enumerate(values):
        state = minutes.see(value)
        if value is not None and value > 50:
            last_broken = index
            assert state == ("critical" if value > 500 else "warning")
        if state is not None:
            assert last_broken is not None and index - last_broken <= LONGEST_CALM // MINUTE


def now(**changes: object) -> QueueNow:
    queue = QueueNow("mail", False, 0, 0, 0, 0, 0, 0, None)
    return replace(queue, **changes)  # type: ignore[arg-type]


def values(queue: QueueNow, stalled: float | None = None, retried: int = 0) -> dict[str, float]:
    figures = Figures([queue], {"mail": stalled} if stalled is not None else {}, {"relay": 7.0}, {"mail": retried})
    return {reading.rule.name: round(reading.value, 3) for reading in readings(figures)}


def test_alert_rules_read_a_queue() -> None:
    recent = Activity("mail", NOW, timedelta(minutes=5), completed=30, failed=4, processed=30, processing_seconds=60)
    queue = now(ready=7, dead_letters=3, oldest_ready_seconds=9.0, retrying=1000, recent=recent)
    assert values(queue, 400, retried=6) == {
        "backlog": 7, "dead-letters": 3, "oldest-ready": 9, "stalled": 400,
        "failure-rate": 0.25, "processing-time": 2, "timer": 7,
    }  # fmt: skip


def test_alert_rules_leave_a_paused_queue_and_few_attempts_alone() -> None:
    recent = Activity("mail", NOW, timedelta(minutes=5), completed=5, failed=14)
    queue = now(paused=True, ready=7, oldest_ready_seconds=9.0, recent=recent)
    assert values(queue, 400) == {"backlog": 7, "dead-letters": 0, "timer": 7}


def test_a_threshold_of_the_scope_goes_before_that_of_all_and_the_declared_ones() -> None:
    rule, mine, everywhere = RULES["timer"], Threshold(1, 2), Threshold(3, None)
    given = {("timer", "relay"): mine, ("timer", ""): everywhere}
    assert threshold_of(rule, "relay", given) == mine
    assert threshold_of(rule, "rescue", given) == everywhere
    assert threshold_of(rule, "rescue", {}) == rule.scopes["rescue"]
    assert threshold_of(rule, "subscriptions", {}) == rule.threshold
    assert Threshold(None, None).level_of(1e9) is None, "switched off"


@pytest.mark.parametrize(
    ("rule", "scope", "threshold", "field"),
    [
        ("backlogs", "", Threshold(1, 2), "rule"),
        ("backlog", "nothing", Threshold(1, 2), "scope"),
        ("timer", "mail", Threshold(1, 2), "scope"),
        ("backlog", "mail", Threshold(-1, 2), "warning"),
        ("backlog", "mail", Threshold(float("nan"), 2), "warning"),
        ("backlog", "mail", Threshold(1, float("inf")), "critical"),
        ("backlog", "mail", Threshold(3, 2), "critical"),
    ],
)
def test_an_alert_threshold_that_cannot_be_is_refused_by_its_field(
    rule: str, scope: str, threshold: Threshold, field: str
) -> None:
    with pytest.raises(ThresholdError) as refused:
        check(rule, scope, threshold, ["mail"])
    assert refused.value.field == field


def test_alert_thresholds_that_can_be_are_taken() -> None:
    check("backlog", "", Threshold(None, None), ["mail"])
    check("backlog", "mail", Threshold(0, 0), ["mail"])
    check("timer", "relay", Threshold(None, 5), ["mail"])


OPERATOR = Operator("19:chat@thread.v2", "fleet@fleet.example", "ops@fleet.example", "ops", "https://fleet.example/d")


def told(number: int = 1, **changes: object) -> ToldAlert:
    alert = ToldAlert(
        f"id-{number}", "backlog:mail", "warning", "5,000 jobs are ready", {"threshold": 1000, "remedy": "Wait."}, NOW
    )
    return replace(alert, **changes)  # type: ignore[arg-type]


def test_an_alert_is_told_on_every_way_with_a_link_and_what_to_do() -> None:
    jobs = {job.queue: job for job in Notices(OPERATOR).jobs([told()])}
    assert set(jobs) == {"teams-outbound", "outlook-outbound", "notifications"}
    for job in jobs.values():
        text = str(job.payload)
        assert "5,000 jobs are ready" in text and "Wait." in text and "https://fleet.example/d#/alerts/id-1" in text
        assert job.priority == 1
        assert job.idempotency_key == job.correlation_id == "operator-notice:alert:id-1:warning"
    assert jobs["notifications"].payload["data"]["alertId"] == "id-1"
    assert jobs["notifications"].payload["url"] == "https://fleet.example/d#/alerts/id-1"


def test_an_alert_has_a_message_for_its_opening_its_rise_and_its_end() -> None:
    ends = told(resolved_at=NOW + MINUTE)
    keys = {Notices(OPERATOR).jobs([one])[0].idempotency_key for one in (told(), told(level="critical"), ends)}
    assert len(keys) == 3
    assert "Wait." not in str(Notices(OPERATOR).jobs([ends])[0].payload)


def test_an_alert_that_rose_after_it_was_acknowledged_says_so_and_is_no_repetition() -> None:
    rises = told(level="critical", acknowledged_at=NOW)
    job, before = Notices(OPERATOR).jobs([rises])[0], Notices(OPERATOR).jobs([told(level="critical")])[0]
    assert "It has risen since it was acknowledged at" in str(job.payload)
    assert job.idempotency_key != before.idempotency_key
    many, once = ([told(n) for n in range(2, 9)] + [one] for one in (rises, told(level="critical")))
    assert Notices(OPERATOR).jobs(many)[0].idempotency_key != Notices(OPERATOR).jobs(once)[0].idempotency_key


def test_alerts_without_a_way_make_no_message() -> None:
    assert Notices(Operator()).jobs([told()]) == []


def test_many_alerts_at_once_are_one_message_each_way() -> None:
    jobs = Notices(OPERATOR).jobs([told(n, resolved_at=NOW if n > 20 else None) for n in range(1, 31)])
    assert len(jobs) == 3
    assert "20 alerts opened, 10 resolved" in str(jobs[0].payload)
    assert "https://fleet.example/d#/alerts?status=open" in str(jobs[0].payload)


def test_a_digest_names_the_weightiest_and_how_many_more_there_are() -> None:
    alerts = [told(n, title=f"{n}: " + "é" * 300) for n in range(2000)]
    alerts += [told(title="all stands", level="critical"), told(title="over", resolved_at=NOW)]
    text = Notices(OPERATOR).jobs(alerts)[1].payload["body"]
    assert "critical: all stands" in text and "over" not in text and "and 1,952 more" in text


@pytest.mark.parametrize("kind", sorted({*OWNED, *FAMILIES}))
def test_every_kind_of_alert_has_a_meaning_and_a_remedy(kind: str) -> None:
    told = explain(f"{kind}:mail", {"remedy": "Do this."})
    assert told.meaning == FAMILIES[kind].meaning and told.remedy == "Do this."
    assert explain(f"{kind}:mail", {}).remedy == FAMILIES[kind].remedy


@pytest.mark.parametrize("kind", list(ErrorClass))
def test_an_alert_of_a_class_of_errors_says_what_that_means(kind: ErrorClass) -> None:
    told, known = explain("dead-letter:mail:x", {"errorClass": kind.value}), BY_CLASS[kind]
    assert told.meaning.endswith(known.meaning) and told.remedy.endswith(known.remedy)


def test_an_alert_leads_to_what_it_is_about() -> None:
    assert explain("backlog:mail", {}).about == (Subject("queue", "mail"), Subject("limits", "mail"))
    assert explain("dead-letters:mail", {}).about[0] == Subject("dead-letters", "mail")
    letters = explain("dead-letter:mail:auth", {"queue": "mail", "lastJobId": "1"})
    assert letters.about == (Subject("dead-letters", "mail"), Subject("job", "1"))
    assert explain("schedule:a:b", {}).about == (Subject("schedule", "a:b"),)
    assert explain("nobody:knows", {}).about == () and explain("nobody:knows", {}).remedy


def test_alert_messages_are_payloads_that_their_queues_take() -> None:
    from shared.handlers.loading import parse_payload

    for job in [
        *Notices(OPERATOR).jobs([told()]),
        *Notices(OPERATOR).jobs([told(n, title="é" * 300) for n in range(3000)]),
    ]:
        assert isinstance(job, NewJob)
        parse_payload(job.queue, json.dumps(job.payload), {"teams_routes": lambda: None})


def test_the_alert_reference_has_exactly_the_rules_and_their_thresholds() -> None:
    page = (Path(__file__).resolve().parents[3] / "docs" / "reference" / "alerts.md").read_text()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in page.splitlines() if line.startswith("|")]
    table = rows[2 : 2 + len(RULES) + len(TIMERS) - 1]

    def number(text: str) -> float:
        return float(text.replace(",", ""))

    shown: dict[tuple[str, str], tuple[float, float]] = {}
    name = ""
    for row in table:
        name = row[0].strip("`") or name
        scope = re.search(r"since `(\w+)`", row[2])
        shown[name, scope.group(1) if scope else ""] = (number(row[3]), number(row[4]))
    declared = {
        (rule.name, scope): threshold_of(rule, scope, {})
        for rule in RULES.values()
        for scope in (TIMERS if rule.per == "timer" else [""])
    }
    assert shown == {key: (threshold.warning, threshold.critical) for key, threshold in declared.items()}


@pytest.mark.parametrize(
    ("rule", "value", "text"),
    [
        ("failure-rate", 0.9661, "97%"),
        ("dead-letters", 1, "1 dead letter"),
        ("backlog", 1204, "1,204 jobs"),
        ("timer", 0, "0 seconds"),
    ],
)
def test_a_measured_value_is_written_with_its_unit(rule: str, value: float, text: str) -> None:
    assert RULES[rule].measured(value) == text
