"""What ./dev q decides without an app: addresses, widths, remedies, findings (cli)."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, get_args
from uuid import UUID

import pytest
import requests
from rich.cells import cell_len

from local.q import doctor, output
from local.q.alerts import LOOKS
from local.q.app import main
from local.q.attempts import folded, show_attempts
from local.q.client import OPERATIONS, Client, refusal, unreachable
from local.q.dead_letters import review
from local.q.enqueue import read_option, read_payload
from local.q.errors import CommandError, Exit
from local.q.findings import Finding, Level, by_weight, problem
from local.q.jobs import retry, show
from local.q.permissions import NEEDS, judge
from local.q.search import find, job_id, letter_id
from local.q.tail import Followed, tail
from local.q.target import KEY, TOKEN, URL, Target, api_address, find_target
from local.q.times import read_time
from shared.access import KEY_HEADER
from shared.monitoring.meaning import Kind
from tests.docs.pages import ROOT

LOCAL = {"WEBHOOK_BASE_URL": "http://127.0.0.1:7071/api", "ADMIN_KEY": "local-key"}


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL, KEY, TOKEN):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("given", ["", "/", "/api", "/api/", "/api/queue", "/api/queue/"])
def test_cli_address_may_be_that_of_the_app_or_of_its_api(given: str) -> None:
    assert api_address(f"https://app.example{given}") == "https://app.example/api/queue"


@pytest.mark.parametrize(
    "given",
    [
        "app.example",
        "ftp://app.example",
        "https://",
        "https://a@app.example",
        "https://app.example?code=x",
        "http://[bad",
        "https://app.example:99999",
        "https://app.example:x",
    ],
)
def test_cli_address_that_is_none_is_refused(given: str) -> None:
    with pytest.raises(CommandError) as caught:
        api_address(given)
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize("host", ["127.0.0.1:7071", "localhost", "[::1]:7071"])
def test_cli_sends_a_key_in_clear_text_on_this_machine_only(host: str) -> None:
    assert api_address(f"http://{host}") == f"http://{host}/api/queue"
    with pytest.raises(CommandError, match="https"):
        api_address("http://127.0.0.1.example")


def test_cli_sends_the_local_apps_key_nowhere_else(monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_target(None, None, False, lambda: LOCAL).proof == {KEY_HEADER: "local-key"}
    assert find_target("https://app.example", None, False, lambda: LOCAL).proof == {}
    monkeypatch.setenv(URL, "https://app.example")
    assert find_target(None, None, False, lambda: LOCAL).proof == {}
    monkeypatch.setenv(TOKEN, "token")
    assert find_target(None, None, False, lambda: LOCAL).proof == {"Authorization": "Bearer token"}
    monkeypatch.setenv(KEY, "key")
    assert find_target(None, None, False, lambda: LOCAL).proof == {KEY_HEADER: "key"}
    assert find_target(None, None, True, lambda: LOCAL).proof == {"Authorization": "Bearer token"}
    assert "key" not in repr(find_target(None, None, False, lambda: LOCAL))


def test_cli_key_that_no_header_can_carry_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(KEY, "secret\nsecret")
    with pytest.raises(CommandError) as caught:
        find_target("https://app.example", None, False, dict)
    assert KEY in str(caught.value) and "secret" not in str(caught.value)


def test_cli_usage_error_is_a_line_and_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in (["lisst"], ["list", "--limit", "many"], ["show"]):
        assert main(wrong, dict, "./dev q") == Exit.USAGE
        errors = capsys.readouterr().err
        assert errors.startswith("./dev q: ") and "Traceback" not in errors, wrong


def test_cli_uses_operations_that_exist() -> None:
    used = set[str]()
    for file in (ROOT / "local" / "q").glob("*.py"):
        used |= set(re.findall(r'\b(?:call|ask)\("(\w+)"', file.read_text()))
    assert {"showJob", "enqueueJobs", "showHealth"} <= used <= set(OPERATIONS)


def test_cli_needs_nothing_of_the_local_stack() -> None:
    code = (
        "import sys, local.q.app;"
        " heavy = {'local.stack', 'local.process', 'psycopg', 'msal', 'azure.functions', 'pydantic'};"
        " sys.exit(', '.join(heavy & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_cli_knows_where_to_look_for_whatever_an_alert_is_about() -> None:
    assert set(LOOKS) == set(get_args(Kind))


def test_cli_permissions_are_those_of_the_reference() -> None:
    page = (ROOT / "docs" / "reference" / "graph.md").read_text()
    [row] = re.findall(r"^\| application \|(.*)\|$", page, re.MULTILINE)
    assert {need.name for need in NEEDS if need.always} == set(re.findall(r"`([\w.]+)`", row))
    assert all(f"`{need.name}`" in page for need in NEEDS)


def test_cli_doctor_takes_a_permission_that_includes_another() -> None:
    granted = frozenset(need.name for need in NEEDS) - {"Mail.Read", "Files.Read.All"}
    assert [one.level for one in judge(granted)] == [Level.OK]


def test_cli_doctor_finds_a_wrong_clock_and_a_timer_that_stands() -> None:
    now = datetime.now(UTC)
    for off, level in ((0, Level.OK), (50, Level.OK), (-300, Level.PROBLEM), (300, Level.PROBLEM)):
        response = requests.Response()
        response.headers["date"] = format_datetime(now + timedelta(seconds=off), usegmt=True)
        [found] = doctor.check_clock(response, now)
        assert found.level is level, off
        assert level is Level.OK or ("ahead" if off > 0 else "behind") in found.text
    fine = {"relay": 10.0, "rescue": 20.0, "partitions": 3600.0}
    assert [one.level for one in doctor.check_timers(fine, {})] == [Level.OK]
    assert [one.part for one in doctor.check_timers(fine | {"relay": 90.0}, {})] == ["timer relay"]
    assert [one.part for one in doctor.check_timers({"relay": 10.0}, {})] == ["timer rescue"]


def test_cli_doctor_judges_the_timers_that_the_alerts_know_and_by_what_somebody_set() -> None:
    fine = {"relay": 10.0, "rescue": 20.0}
    slow = {"clean-up": 80_000.0, "poison-sweep": 299.0, "reports": 605.0}  # a day, five and ten minutes apart
    text = "\n".join(f'fleet_queue_timer_age_seconds{{timer="{name}"}} {age}' for name, age in (fine | slow).items())
    assert dict(doctor._AGE.findall(text)) == {name: str(age) for name, age in (fine | slow).items()}
    [found] = doctor.check_timers(fine | slow, {})
    assert (found.level, found.text) == (Level.OK, "relay, rescue and 0 others run")
    assert [one.part for one in doctor.check_timers(fine | {"alerts": 700.0}, {})] == ["timer alerts"]
    row = {"rule": "timer", "scope": "relay", "warning": 5.0, "critical": None, "changedBy": "key 1"}
    built_in = {"rule": "timer", "scope": "", "warning": 1.0, "critical": 2.0, "changedBy": None}
    given = doctor.read_thresholds({"items": [row, built_in]})
    assert [one.part for one in doctor.check_timers(fine, given)] == ["timer relay"]
    given = doctor.read_thresholds({"items": [row | {"warning": None}]})
    assert [one.level for one in doctor.check_timers(fine | {"relay": 9000.0}, given)] == [Level.OK], "switched off"
    stats = {"queues": [{"queue": "sync", "oldestReadySeconds": 400.0, "paused": False}]}
    assert [one.part for one in doctor.check_queues(stats, {})] == ["queue sync"]
    given = doctor.read_thresholds({"items": [row | {"rule": "oldest-ready", "scope": "sync", "warning": 500.0}]})
    assert [one.level for one in doctor.check_queues(stats, given)] == [Level.OK]


def test_cli_doctor_tells_of_subscriptions_near_their_end() -> None:
    counts: dict[str, Any] = {"declared": 3, "uncovered": 0, "expiring": 0, "nextExpiryAt": "2026-11-25T12:00:00Z"}
    one = {"resource": "users/1/messages", "problem": "403 Forbidden", "problemSince": "2026-11-25T10:00:00Z"}
    assert [found.level for found in doctor.check_subscriptions({"items": [], "counts": counts})] == [Level.OK]
    [found] = doctor.check_subscriptions({"items": [], "counts": counts | {"expiring": 2}})
    assert found.level is Level.PROBLEM and "2 are near their end" in found.text
    [found, missing] = doctor.check_subscriptions({"items": [one], "counts": counts | {"uncovered": 1}})
    assert (found.part, found.level) == ("subscription users/1/messages", Level.PROBLEM) and "403" in found.text
    assert missing.level is Level.NOTICE


def test_cli_refusal_names_fields_and_survives_what_is_no_problem_document() -> None:
    target = Target("https://app.example/api/queue", {})
    answer = requests.Response()
    answer.status_code = 422
    answer._content = b'{"detail": "the body is wrong", "errors": [{"field": "a", "message": "b"}]}'
    assert refusal(answer, target).lines() == ["a: b"]
    for body in (b"", b"<html>", b"[]", b'{"detail": 1, "errors": 5}', b"null"):
        answer._content = body
        assert refusal(answer, target).code is Exit.REFUSED
    answer.status_code = 502
    assert refusal(answer, target).code is Exit.UNAVAILABLE


def test_cli_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[list[str | None]] = [
        ["a" * 36, "dead", "much too long to stand beside it " * 4],
        ["b" * 36, "ready", None],
    ]
    for width in (80, 60, 200):
        monkeypatch.setattr(output, "_width", lambda width=width: width)
        output.show_table(["job", "state", "error"], rows)
        lines = capsys.readouterr().out.splitlines()
        assert max(map(cell_len, lines)) <= width and all(line == line.rstrip() for line in lines)
        assert " ".join(" ".join(lines).split()).count("beside it") == 4


def test_cli_shows_nothing_that_a_terminal_obeys(capsys: pytest.CaptureFixture[str]) -> None:
    output.say("\x1b]0;owned\x07[red]x[/red]\x9b2J\u202e")
    assert capsys.readouterr().out == "�]0;owned�[red]x[/red]�2J�\n"


def _attempt(number: int, message: str) -> dict[str, Any]:
    call = {"method": "POST", "path": "/chats/{id}/messages", "status": 503, "request_id": f"r{number}"}
    times = {"startedAt": f"2026-11-25T14:00:0{number}Z", "finishedAt": f"2026-11-25T14:00:0{number}Z", "worker": "w"}
    details = {"graph_calls": [call], "failed_call": call}
    head = {"number": number, "outcome": "retry", "errorClass": "network", "message": message, "details": details}
    return head | times


def test_cli_attempts_are_newest_first_and_the_same_error_once(capsys: pytest.CaptureFixture[str]) -> None:
    show_attempts([*(_attempt(number, "503") for number in range(1, 5)), _attempt(5, "404"), _attempt(6, "404")])
    lines = capsys.readouterr().out.splitlines()
    assert [line[0] for line in lines if not line.startswith(" ")] == ["6", "4"]
    assert "   POST  /chats/{id}/messages  503  request-id r6" in lines and len(lines) == 8
    assert "The same at attempt 5," in lines[3] and "The same at attempts 1 to 3," in lines[7]


def test_cli_timeline_says_the_ends_of_attempts_once() -> None:
    def ends(number: int, how: str) -> list[dict[str, Any]]:
        about = {"at": f"2026-11-25T14:00:0{number}Z", "by": "w"}
        start = about | {"event": "started", "text": f"attempt {number}"}
        return [start, about | {"event": "attempt", "text": f"attempt {number} {how}"}]

    running = {"at": "2026-11-25T14:00:09Z", "event": "started", "text": "attempt 5", "by": "w"}
    timeline = [one for number in (1, 2, 3) for one in ends(number, "retry: network")] + ends(4, "dead: auth")
    assert [f"{one['event']} {one['text']}" for one in folded([*timeline, running])] == [
        "attempts 1 to 3 retry: network",
        "attempt 4 dead: auth",
        "attempt 5 started",
    ]


def test_cli_payload_fields_are_text_or_json() -> None:
    assert read_payload(None, ["a=1=2", "b:=[1]", "c="]) == {"a": "1=2", "b": [1], "c": ""}
    for wrong in ("a", "=x", ":=1", "a:=x", "a:=NaN", "a:=[-Infinity]", "a:=1e400"):
        with pytest.raises(CommandError) as caught:
            read_payload(None, [wrong])
        assert caught.value.code is Exit.USAGE and repr(wrong) in str(caught.value)


def test_cli_number_that_is_none_is_the_typists_mistake_not_the_apps(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, told in (
        (("enqueue", "sync", "x=1", "--delay", "nan"), "'--delay': nan is no number"),
        (("enqueue", "sync", "x=1", "--expires-in", "inf"), "'--expires-in': inf is no number"),
        (("redrive", "--queue", "sync", "--rate", "nan", "--yes"), "'--rate': nan is no number"),
        (("thresholds", "--set", "backlog=nan/inf"), "--set backlog=nan/inf: 'nan' is no number"),
        (("thresholds", "--set", "backlog=/"), "--set backlog=/: write RULE=WARNING/CRITICAL"),
    ):
        assert main(["--url", "http://127.0.0.1:1", *arguments], dict, "./dev q") == Exit.USAGE, arguments
        assert told in capsys.readouterr().err
    with pytest.raises(CommandError, match="nothing was sent") as caught:
        Client(Target("http://127.0.0.1:1", {})).call("changeLimits", queue="sync", body={"a": float("inf")})
    assert caught.value.code is Exit.USAGE


def test_cli_options_are_text_or_json() -> None:
    assert read_option("orderingKey=truck=7") == ("orderingKey", "truck=7")
    assert read_option("dependsOn=a, b") == ("dependsOn", ["a", "b"])
    assert read_option('dependsOn=["a"]') == ("dependsOn", ["a"]) == read_option('dependsOn:=["a"]')
    assert read_option("concurrencyLimit=3") == ("concurrencyLimit", 3)
    for wrong in ("a", "=x", ":=1", "a:=x", "concurrencyLimit=x"):
        with pytest.raises(CommandError):
            read_option(wrong)


def test_cli_takes_times_as_people_type_them() -> None:
    now = datetime.now(UTC)
    for text, ago in (("90s", 90), ("30min", 1800), ("2h", 7200), (" 1d ", 86_400)):
        found = datetime.fromisoformat(read_time("--from", text) or "")
        assert abs((now - found).total_seconds() - ago) < 5, text
    assert read_time("--from", "2026-12-01T08:00:00Z") is not None and read_time("--from", None) is None
    [clock] = [datetime.fromisoformat(read_time("--from", "14:30") or "")]
    assert (clock.hour, clock.minute) == (14, 30) and clock.tzinfo is not None
    for wrong in ("soon", "25:00", "h", "2 weeks", "999999d", "0001-01-01"):
        with pytest.raises(CommandError, match="--from") as caught:
            read_time("--from", wrong)
        assert caught.value.code is Exit.USAGE


class _Found:
    """What the API finds: jobs by their id, and a page for any search."""

    def __init__(self, *jobs: dict[str, Any]) -> None:
        self.jobs = {job["id"]: job for job in jobs}
        self.reviews: list[tuple[str, Any]] = []

    def call(
        self, operation: str, *, query: dict[str, Any] | None = None, body: Any = None, id: str = ""
    ) -> dict[str, Any]:
        if operation == "reviewDeadLetter":
            self.reviews.append((id, body))
            return {"id": id, "reviewedBy": "key 1"}
        if operation == "findJobs":
            return {"items": list(self.jobs.values()), "next": None}
        if operation == "showJob" and id in self.jobs:
            return self.jobs[id] | {"payload": {}}
        raise CommandError(Exit.NOT_FOUND, "no such thing")


def test_cli_show_takes_what_a_caller_has_and_answers_with_one_message() -> None:
    first, second = str(UUID(int=1)), str(UUID(int=2))
    one = {"id": second, "redriveOf": first}
    assert find(_Found({"id": first, "redriveOf": None}), "trip-1")["payload"] == {}  # type: ignore[arg-type]
    redriven = find(_Found(one, {"id": first, "redriveOf": None}), "trip-1")  # type: ignore[arg-type]
    assert (redriven["id"], redriven["payload"]) == (second, {}), "the newest of a chain of redrives"
    several = find(_Found(one, {"id": str(UUID(int=3)), "redriveOf": None}), str(UUID(int=9)))  # type: ignore[arg-type]
    assert len(several["items"]) == 2, "an id that is no job's may be somebody's correlation id"
    with pytest.raises(CommandError) as caught:
        find(_Found(), "trip-9")  # type: ignore[arg-type]
    assert caught.value.code is Exit.NOT_FOUND and "recipient" in caught.value.lines()[1]


def test_cli_show_opens_no_message_of_a_person_who_may_have_more_under_way(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    user, request = str(UUID(int=8)), str(UUID(int=9))
    job: dict[str, Any] = dict.fromkeys(
        ("redriveOf", "deadLetterId", "correlationId", "idempotencyKey", "limitKey", "errorClass")
    )
    job |= {"id": str(UUID(int=1)), "timeline": [], "attempts": [{"details": {"request_id": request}}]}
    job |= {"queue": "outlook-outbound", "label": "completed", "attempt": 1, "at": "2026-11-25T14:00:00Z"}
    for text in ("Pat@customer.example", user):
        assert "items" in find(_Found(job), text), text  # type: ignore[arg-type]
        monkeypatch.setattr("local.q.jobs.client_of", lambda _: _Found(job))
        show(None, text)  # type: ignore[arg-type]
        said = " ".join(capsys.readouterr().out.split())
        assert f"1 job fits '{text}': Messages to {text} that have not ended are not found" in said
    again = {"event": "job.again", "text": "correlationId: Pat@customer.example"}
    for text, own in (
        (request, {}), ("<a@customer.example>", {}), ("19:a@thread.v2", {}), (user, {"correlationId": user}),
        ("pat@customer.example", {"limitKey": "mailbox:pat@customer.example"}),
        ("pat@customer.example", {"timeline": [again]}),
    ):  # fmt: skip
        assert "payload" in find(_Found(job | own), text), (text, own)  # type: ignore[arg-type]


def test_cli_show_of_a_dead_letter_whose_job_is_no_longer_kept_is_the_letter(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    job, letter = str(UUID(int=1)), str(UUID(int=5))
    asked: list[str] = []

    class Api:
        def call(self, operation: str, *, id: str) -> dict[str, Any]:
            asked.append(operation)
            if operation == "showDeadLetter" and id in (job, letter):
                return {
                    "id": letter, "jobId": job, "queue": "sync", "state": "open", "errorClass": "auth", "text": None,
                    "errorMessage": "403", "diedAt": "2026-10-01T14:00:00Z", "reviewedBy": None, "reviewNote": None,
                }  # fmt: skip
            raise CommandError(Exit.NOT_FOUND, "no such thing")

    monkeypatch.setattr("local.q.jobs.client_of", lambda _: Api())
    for text in (letter, job):
        asked.clear()
        show(None, text)  # type: ignore[arg-type]
        said = capsys.readouterr().out
        assert f"dead letter of job {job}, which is no longer kept" in said and "auth: 403" in said
        assert f"./dev q discard {letter}" in said and "not one of our messages" not in said
        assert asked == ["showJob", "showDeadLetter", "showJob"]
        assert letter_id(Api(), text) == letter  # type: ignore[arg-type]
        with pytest.raises(CommandError, match="a dead letter whose job is no longer kept: it can only be discarded"):
            job_id(Api(), text)  # type: ignore[arg-type]


def test_cli_orders_take_what_show_takes_where_it_is_one_job(monkeypatch: pytest.MonkeyPatch) -> None:
    one = {"id": str(UUID(int=1)), "redriveOf": None, "state": "dead", "deadLetterId": str(UUID(int=5))}
    other = {"id": str(UUID(int=2)), "redriveOf": None, "state": "completed", "deadLetterId": None}
    several = _Found(*(job | {"queue": "teams-outbound", "label": job["state"]} for job in (one, other)))
    assert job_id(_Found(one), "trip-1") == one["id"]  # type: ignore[arg-type]
    assert letter_id(_Found(one), "trip-1") == one["deadLetterId"]  # type: ignore[arg-type]
    with pytest.raises(CommandError, match="is completed: it has no dead letter"):
        letter_id(_Found(other), "trip-1")  # type: ignore[arg-type]
    reviewed = _Found(one)
    monkeypatch.setattr("local.q.dead_letters.client_of", lambda _: reviewed)
    review(None, "trip-1", "the chat was deleted")  # type: ignore[arg-type]
    assert reviewed.reviews == [(one["deadLetterId"], {"note": "the chat was deleted"})]
    for which in (job_id, letter_id):
        with pytest.raises(CommandError, match="does not say which") as caught:
            which(several, "trip-1")  # type: ignore[arg-type]
        assert caught.value.code is Exit.REFUSED and one["id"] in caught.value.lines()[1]


@pytest.mark.parametrize(
    ("before", "state", "after", "said"),
    [
        ("scheduled", "ready", "ready", "It runs now."),
        ("scheduled", "scheduled", "scheduled", "It does not run yet. Head scheduled. Why."),
        ("scheduled", "ready", "paused", "It does not run yet. Head paused. Why."),
        ("parked", "ready", "ready", "It is tried now, and parks again unless there is a token by then. It was: Head"),
    ],
)
def test_cli_retry_says_what_really_comes_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], before: str, state: str, after: str, said: str
) -> None:
    shown = [
        {"id": str(UUID(int=1)), "payload": {}, "state": of, "diagnosis": {"label": label, "headline": f"Head {label}",
                                                                         "why": ["Why."]}}
        for of, label in (("scheduled", before), ("scheduled", before), (state, after))
    ]  # fmt: skip

    class Api:
        def call(self, operation: str, id: str) -> Any:
            return {"id": id, "created": False} if operation == "retryJob" else shown.pop(0)

    monkeypatch.setattr("local.q.jobs.client_of", lambda _: Api())
    retry(None, str(UUID(int=1)))  # type: ignore[arg-type]
    assert " ".join(capsys.readouterr().out.split()).startswith(said)


def test_cli_doctor_names_each_group_of_dead_letters_once_and_what_matters_most_first() -> None:
    group = {"count": 1, "unreviewed": 1, "queue": "sync", "errorClass": "auth", "lastAt": "2026-11-25T12:00:00Z",
             "exampleMessage": "Graph answered 403\nmore", "exampleId": "letter", "foreign": False}  # fmt: skip
    [found] = doctor.check_dead_letters([group])
    assert (found.level, found.remedy) == (Level.PROBLEM, "./dev q show letter")
    assert found.text.startswith("1 job ended as auth") and found.text.endswith(": Graph answered 403")
    [known] = doctor.check_dead_letters([group | {"unreviewed": 0, "count": 2}])
    assert known.level is Level.NOTICE and "2 jobs" in known.text
    assert [one.part for one in doctor.check_dead_letters([group] * 12)][-1] == "dead letters"
    alert = {"title": "x", "openedAt": "2026-11-25T12:00:00Z", "acknowledgedAt": None, "level": "critical", "id": "1"}
    told = [alert | {"key": key, "remedy": "Look."} for key in ("dead-letter:sync:auth", "timer:relay", "backlog:sync")]
    told.append(alert | {"key": "identity:ann", "remedy": "./dev sign-in --account ann"})
    alerts = [*doctor.check_alerts(told)]
    assert [one.part for one in alerts] == ["alert backlog:sync", "alert identity:ann"]
    assert [one.remedy for one in alerts] == ["Look. ./dev q alerts show 1", "./dev sign-in --account ann"]
    ordered = by_weight([Finding("queues", Level.OK, "x"), known, found, *alerts, problem("app", "x", "y")])
    assert [one.part for one in ordered][:2] == ["app", "alert identity:ann"] and ordered[-1].level is Level.OK


def test_cli_says_when_what_runs_here_has_no_host() -> None:
    error = requests.exceptions.ConnectionError()
    for settings, hint in ((LOCAL, "./dev logs host"), ({}, "Start it with ./dev up")):
        found = unreachable(Target("http://127.0.0.1:1/api/queue", {}, settings), error)
        assert hint in found.lines()[-1], settings


class _Ends:
    """A queue's ended jobs, newest first, as the API pages through them."""

    def __init__(self) -> None:
        self.ids: list[tuple[datetime, str]] = []

    def call(self, operation: str, *, queue: str, query: dict[str, Any]) -> dict[str, Any]:
        assert (operation, queue) == ("listJobs", "sync")
        start, ordered = int(query["cursor"] or 0), sorted(self.ids, reverse=True)
        rows = ordered[start : start + query["limit"]]
        more = str(start + query["limit"]) if len(ordered) > start + query["limit"] else None
        return {"items": [{"id": name, "at": at.isoformat()} for at, name in rows], "next": more}


def test_cli_tail_shows_each_end_once_also_one_that_shows_late() -> None:
    ends, start = _Ends(), datetime(2026, 11, 25, tzinfo=UTC)
    ends.ids = [(start + timedelta(milliseconds=number), f"old-{number}") for number in range(500)]
    followed = Followed("dead")

    def new() -> Sequence[str]:
        return sorted(one["id"] for one in followed.new(ends, "sync"))  # type: ignore[arg-type]

    assert len(followed.begin(ends, "sync")) == 200  # type: ignore[arg-type]
    assert new() == []
    ends.ids += [(start + timedelta(seconds=2, milliseconds=number), f"new-{number:03}") for number in range(450)]
    assert new() == [f"new-{number:03}" for number in range(450)] and new() == []
    ends.ids.append((start + timedelta(seconds=1), "late"))
    assert new() == ["late"] and new() == []


@pytest.mark.parametrize(("lines", "shown"), [(10, 7), (7, 7), (5, 5), (20, 7), (0, 0)])
def test_cli_tail_shows_as_many_of_the_last_ends_as_there_are(
    monkeypatch: pytest.MonkeyPatch, lines: int, shown: int
) -> None:
    ends, said = _Ends(), list[str]()
    ends.ids = [(datetime(2026, 11, 25, 12, 0, number, tzinfo=UTC), f"job-{number}") for number in range(7)]
    monkeypatch.setattr("local.q.tail.client_of", lambda _: ends)
    monkeypatch.setattr("local.q.tail.show_line", lambda one: said.append(one["id"]))
    monkeypatch.setattr("local.q.tail._follow", lambda *_: ())
    tail(None, "sync", failed=True, lines=lines, json=True)  # type: ignore[arg-type]
    assert said == [f"job-{number}" for number in range(7 - shown, 7)]


def test_cli_tail_of_a_queue_where_nothing_has_ended() -> None:
    ends, followed = _Ends(), Followed("completed")
    assert followed.begin(ends, "sync") == []  # type: ignore[arg-type]
    ends.ids.append((datetime(2026, 11, 25, tzinfo=UTC), "first"))
    assert [one["id"] for one in followed.new(ends, "sync")] == ["first"]  # type: ignore[arg-type]
    assert followed.new(ends, "sync") == []  # type: ignore[arg-type]
