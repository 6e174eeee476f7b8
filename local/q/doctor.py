"""Looks at everything that has to be right for jobs to run, and says what to do about what is not."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import requests
import typer

from local.q import permissions
from local.q.client import Client, Json, refusal
from local.q.errors import CommandError, Exit
from local.q.findings import Finding, Level, by_weight, problem
from local.q.output import ago, counted, say, show_json, span
from local.q.session import AsJson, session_of
from shared.engine.errors import NoRightsError, NotMigratedError
from shared.monitoring.rules import RULES, TIMERS, Threshold, threshold_of

#: Entra and Azure Storage refuse requests at five and fifteen minutes.
SKEW_SECONDS = 60.0
#: More of one kind are not named one by one.
MOST_NAMED = 10
#: Families of alerts about what the doctor sees for itself.
LOOKED_AT = frozenset({"dead-letter", "dead-letters", "timer", "oldest-ready"})
#: Those that the alerts are about, and the one that raises them.
WATCHED = (*TIMERS, "alerts")
_AGE = re.compile(r'^fleet_queue_timer_age_seconds\{timer="([^"]+)"\} (\S+)$', re.MULTILINE)
Given = Mapping[tuple[str, str], Threshold]
PARTS = {
    ("database", "away"): "Look whether PostgreSQL runs, and whether its firewall lets the app in.",
    ("database", "not configured"): "Set DATABASE_URL in the app's settings.",
    (
        "storage",
        "away",
    ): "Look whether the storage account is there, and whether the app may use it and its queues exist.",
    ("storage", "not configured"): "Set QueueStorage, or QueueStorage__queueServiceUri, in the app's settings.",
    **{("database", one.state): one.remedy for one in (NotMigratedError, NoRightsError)},
}

MARKS = {
    Level.OK: ("ok", "green"),
    Level.NOTICE: ("note", "cyan"),
    Level.UNKNOWN: ("?", "yellow"),
    Level.PROBLEM: ("DO", "red"),
}


def doctor(context: typer.Context, json: AsJson = False) -> None:
    """Check whether all is right, and say what to do if not.

    Settings, database, storage, clocks, timers, queues, alerts (subscriptions, identities) and Graph permissions.
    Exit code 1 when something needs doing.
    """
    session = session_of(context)
    found = by_weight([*_look(session.client), *permissions.look(session.target)])
    problems = sum(one.level is Level.PROBLEM for one in found)
    if json:
        show_json({"url": session.target.url, "problems": problems, "findings": [asdict(one) for one in found]})
    else:
        for finding in found:
            _show(finding)
        what = counted(problems, "thing needs", "things need")
        say(f"\n{what} something done, what matters most first." if problems else "\nNothing needs doing.")
    raise typer.Exit(Exit.ATTENTION if problems else Exit.DONE)


def _show(finding: Finding) -> None:
    mark, style = MARKS[finding.level]
    say(f"{mark:<4}  {finding.part}: {finding.text}", style if finding.level is Level.PROBLEM else "")
    if finding.remedy:
        say(f"      → {finding.remedy}")


def _look(client: Client) -> Iterator[Finding]:
    """What the admin API tells; what cannot be reached ends it, since all the rest would say the same."""
    asked = datetime.now(UTC)
    try:
        response = client.ask("showHealth")
        health = _health(response, client)
    except CommandError as error:
        yield problem("app", str(error), error.hint or "Look at the app's log.")
        return
    yield Finding("app", Level.OK, f"{client.target.url} answers")
    yield from check_clock(response, asked)
    yield from check_parts(health)
    try:
        stats = client.call("showStats")
        timers = dict(_AGE.findall(client.call("showPrometheus")))
        given = read_thresholds(client.call("showThresholds"))
        alerts = client.call("listAlerts", query={"status": "open", "limit": 200})
        failing = client.call("listSubscriptions", query={"status": "failing", "limit": MOST_NAMED})
        groups = client.call("groupDeadLetters")["groups"]
    except CommandError as error:
        yield problem("admin API", str(error), error.hint or "Look at the app's log.")
        return
    yield Finding("admin API", Level.OK, "it lets you in")
    yield from check_timers({name: float(age) for name, age in timers.items()}, given)
    yield from check_queues(stats, given)
    yield from check_subscriptions(failing)
    yield from check_dead_letters(groups)
    yield from check_alerts(alerts["items"])


def _health(response: requests.Response, client: Client) -> Json:
    try:
        found = response.json() if response.status_code in (200, 503) else None
        if isinstance(found, dict) and isinstance(found["checks"], dict) and isinstance(found["settings"], list):
            return found
    except (ValueError, KeyError):
        pass
    raise refusal(response, client.target)


def check_clock(response: requests.Response, asked: datetime) -> Iterator[Finding]:
    """The header's time is cut to a second, and anything from the question to the answer."""
    given, answered = response.headers.get("date"), datetime.now(UTC)
    if given is None:
        yield Finding("clock", Level.UNKNOWN, "the app's answer has no date")
        return
    theirs = parsedate_to_datetime(given)
    behind, ahead = (asked - theirs).total_seconds() - 1, (theirs - answered).total_seconds()
    off = max(behind, ahead, 0.0)
    if off > SKEW_SECONDS:
        which = "behind" if behind > ahead else "ahead"
        text = f"the app's clock is {span(off)} {which} this machine's"
        yield problem(
            "clock", text, "Set the wrong one by NTP: tokens and signed requests are refused by wrong clocks."
        )
    else:
        yield Finding("clock", Level.OK, "the app's and this machine's agree")


def check_parts(health: Json) -> Iterator[Finding]:
    for name, state in health["checks"].items():
        if state == "ok":
            yield Finding(name, Level.OK, "it can be used")
        else:
            yield problem(name, f"it is {state}", PARTS.get((name, state), "Look at the app's log."))
    for one in health["settings"]:
        yield problem(f"setting {one['name']}", one["problem"], "Change it in the app's settings; restart the app.")
    if not health["settings"]:
        yield Finding("settings", Level.OK, "complete")


def read_thresholds(shown: Json) -> Given:
    """What somebody set, in place of what is built in."""
    changed = (one for one in shown["items"] if one["changedBy"] is not None)
    return {(one["rule"], one["scope"]): Threshold(one["warning"], one["critical"]) for one in changed}


def check_timers(ages: dict[str, float], given: Given) -> Iterator[Finding]:
    rule = RULES["timer"]
    ages = {name: ages[name] for name in WATCHED if name in ages}
    late = {name: age for name, age in ages.items() if threshold_of(rule, name, given).level_of(age) is not None}
    for name, age in late.items():
        yield problem(f"timer {name}", f"it has not finished for {span(age)}", rule.remedy)
    for name in ("relay", "rescue"):
        if name not in ages:
            yield problem(f"timer {name}", "it has never finished", f"Wait a minute after a first start. {rule.remedy}")
    if not late and {"relay", "rescue"} <= set(ages):
        yield Finding("timers", Level.OK, f"relay, rescue and {len(ages) - 2} others run")


def check_queues(stats: Json, given: Given) -> Iterator[Finding]:
    rule, fine = RULES["oldest-ready"], True
    for one in stats["queues"]:
        name, oldest = one["queue"], one["oldestReadySeconds"]
        if one["paused"]:
            waits = one["ready"] + one["scheduled"] + one["waiting"]
            yield Finding(
                f"queue {name}",
                Level.NOTICE,
                f"paused; {counted(waits, 'job waits', 'jobs wait')}",
                f"Let it go on: ./dev q resume {name}",
            )
        elif oldest is not None and threshold_of(rule, name, given).level_of(oldest) is not None:
            fine = False
            yield problem(f"queue {name}", f"a job has been ready for {span(oldest)}", rule.remedy)
    if fine:
        yield Finding("queues", Level.OK, "no job has been ready for too long")


def check_dead_letters(groups: list[Json]) -> Iterator[Finding]:
    """Each group once, the largest first. What somebody has reviewed waits for a decision, and is no news."""
    for one in groups[:MOST_NAMED]:
        what = f"{counted(one['count'], 'job')} ended as {one['errorClass']}"
        if one["foreign"]:
            what = counted(one["count"], "message came that is not ours", "messages came that are not ours")
        text = f"{what}, the last {ago(one['lastAt'])}: "
        text += one["exampleMessage"].partition("\n")[0][:150]
        level = Level.PROBLEM if one["unreviewed"] else Level.NOTICE
        yield Finding(f"dead letters of {one['queue']}", level, text, f"./dev q show {one['exampleId']}")
    if more := groups[MOST_NAMED:]:
        text = f"{counted(len(more), 'more group')}, of {counted(sum(one['count'] for one in more), 'dead letter')}"
        yield Finding("dead letters", Level.NOTICE, text, "./dev q dead")


def check_subscriptions(failing: Json) -> Iterator[Finding]:
    """`failing` is a page of those that fail, with the counts of all."""
    counts, part = failing["counts"], "subscriptions"
    for one in failing["items"]:
        remedy = "Mend that; it is tried again by itself. ./dev q subscriptions --status failing shows all."
        yield problem(f"subscription {one['resource']}", f"{one['problem']} ({ago(one['problemSince'])})", remedy)
    if counts["expiring"]:
        near = counted(counts["expiring"], "is near its end and not renewed", "are near their end and not renewed")
        text = f"{near}; the first ends {ago(counts['nextExpiryAt'])}"
        yield problem(part, text, "See whether jobs of the queue subscriptions end: ./dev q list subscriptions")
    if counts["uncovered"]:
        text = f"{counts['uncovered']} of {counts['declared']} watched resources have none now"
        yield Finding(
            part, Level.NOTICE, text, "New ones get it within minutes; ./dev q subscriptions --status uncovered"
        )
    if not (failing["items"] or counts["expiring"] or counts["uncovered"]):
        yield Finding(part, Level.OK, f"all {counts['declared']} watched resources have one, none near its end")


def check_alerts(alerts: list[Json]) -> Iterator[Finding]:
    """Identities without a token, certificates that end and the rest are known to the app, and told here; but not
    what was looked at just now: an alert says what was, until it is resolved."""
    for one in alerts:
        if one["key"].partition(":")[0] in LOOKED_AT:
            continue
        text = f"{one['title']} ({ago(one['openedAt'])})"
        remedy = one["remedy"] if "./dev " in one["remedy"] else f"{one['remedy']} ./dev q alerts show {one['id']}"
        if one["acknowledgedAt"]:
            yield Finding(
                f"alert {one['key']}", Level.NOTICE, f"{text}; {one['acknowledgedBy']} looks after it", remedy
            )
        elif one["level"] == "info":
            yield Finding(f"alert {one['key']}", Level.NOTICE, text, remedy)
        else:
            yield problem(f"alert {one['key']}", text, remedy)
