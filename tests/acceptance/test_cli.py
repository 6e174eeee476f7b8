"""./dev q against the running system: each command as text and as JSON, refusals, tail, doctor."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.fake_graph.registration import APPLICATION_PERMISSIONS
from local.process import free_port
from local.q.app import main
from local.q.errors import Exit
from local.q.target import KEY, TOKEN, URL
from shared.monitoring.report import Material, summarise
from tests.acceptance.system import System, in_process, wait_for

ROOT = Path(__file__).parents[2]
QUEUE = "teams-outbound"


class Cli:
    """Runs commands in this process, as `./dev q` does when the system is what runs locally."""

    def __init__(self, running: Callable[[], Mapping[str, str]], capture: pytest.CaptureFixture[str]) -> None:
        self._running = running
        self._capture = capture

    def run(self, *arguments: str) -> tuple[int, str, str]:
        """Exit code, output, error output."""
        self._capture.readouterr()
        code = main(arguments, self._running, "./dev q")
        return code, *self._capture.readouterr()

    def text(self, *arguments: str) -> str:
        code, output, errors = self.run(*arguments)
        assert code == 0, errors
        assert "\x1b" not in output
        return output

    def json(self, *arguments: str) -> Any:
        return json.loads(self.text(*arguments, "--json"))


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (URL, KEY, TOKEN):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def cli(system: System, capsys: pytest.CaptureFixture[str]) -> Cli:
    return Cli(lambda: system.environment, capsys)


def test_cli_finds_a_job_and_says_what_happened_and_what_to_do(system: System, cli: Cli) -> None:
    name = f"{system.tag}-cli"
    made = cli.json("enqueue", QUEUE, "chatId=19:gone@thread.v2", "content=Lost", "--correlation-id", name)
    wait_for(lambda: system.state(made["id"]), "dead")
    assert made["id"] in cli.text("list", QUEUE, "--status", "dead")
    [found] = cli.json("list", QUEUE, "--search", name)["items"]
    assert (found["id"], found["errorClass"]) == (made["id"], "validation")
    assert cli.json("list", "--search", f" {name.upper()} ")["items"] == [found]  # without the job that tells of it
    failures = cli.json("list", "--status", "dead", "--error-class", "validation", "--from", "10min")["items"]
    assert found in failures and not cli.json("list", "--status", "dead", "--to", "1h")["items"]
    assert any(QUEUE in line and made["id"] in line for line in cli.text("list", "--search", name).splitlines())
    shown = cli.json("show", made["id"])
    text = cli.text("show", made["id"])
    [call] = shown["attempts"][0]["details"]["graph_calls"]
    assert f"request-id {call['request_id']}" in text and f"client-request-id {call['client_request_id']}" in text
    assert "404" in text and "validation: Graph answered 404" in text and '"content": "Lost"' in text
    now = text.partition("What to do now\n")[2]
    assert "Correct it where it was made" in now and f"./dev q discard {shown['deadLetterId']}" in now
    for which in (shown["deadLetterId"], name, f" {name.upper()} ", f"{made['id'][:8]}…{made['id'][-4:]}",
                  call["request_id"]):  # fmt: skip
        assert cli.text("show", which) == text, which
    [told] = cli.json("list", "dead-letter", "--search", name)["items"]
    assert f"./dev q show {made['id']}" in cli.text("show", told["id"])
    other = cli.json("enqueue", QUEUE, *_fields(system.message("x")), "--correlation-id", name, "--delay", "99")["id"]
    chosen = cli.text("show", name)
    assert f"2 jobs fit '{name}', newest first" in chosen and made["id"] in chosen
    key = ("--idempotency-key", name)
    first = cli.json("enqueue", QUEUE, *_fields(system.message("one")), "--delay", "99", *key)["id"]
    again = cli.text("enqueue", QUEUE, *_fields(system.message("two")), *key)
    assert again.startswith(first) and "nothing new was stored. Its payload is another one than yours!" in again
    for job in (other, first):
        cli.text("cancel", job)


def test_cli_pages_by_cursor(system: System, cli: Cli) -> None:
    name = f"{system.tag}-pages"
    payloads = [system.message(str(number)) for number in range(3)]
    for payload in payloads:
        cli.text("enqueue", QUEUE, *_fields(payload), "--correlation-id", name)
    wait_for(system.unfinished, 0)  # a job that ends moves to the front
    first = cli.json("list", QUEUE, "--search", name, "--limit", "2")
    second = cli.json("list", QUEUE, "--search", name, "--limit", "2", "--cursor", first["next"])
    assert len({job["id"] for job in first["items"] + second["items"]}) == 3 and second["next"] is None
    assert f"--cursor {first['next']}" in cli.text("list", QUEUE, "--search", name, "--limit", "2")


def _fields(payload: Mapping[str, Any]) -> list[str]:
    return [f"{name}={value}" for name, value in payload.items()]


def test_cli_enqueues_from_a_file_with_options(system: System, cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "payloads.json"
    file.write_text(json.dumps([system.message("one"), system.message("two")]))
    made = cli.json("enqueue", QUEUE, "-f", str(file), "--option", "orderingKey=truck-7", "--delay", "3600")
    ids = [job["id"] for job in made["jobs"]]
    assert [cli.json("show", job)["state"] for job in ids] == ["scheduled", "scheduled"]
    assert "./dev q retry" in cli.text("show", ids[0])
    assert cli.json("retry", ids[0]) == {"id": ids[0], "created": False}
    wait_for(lambda: system.state(ids[0]), "completed")
    assert cli.text("cancel", ids[1]) == "Cancelled.\n"
    again = cli.json("enqueue", QUEUE, *_fields(system.message("x")), "--delay", "3600")["id"]
    assert cli.text("retry", again) == "It runs now.\n"
    one = cli.json("enqueue", QUEUE, *_fields(system.message("y")), "--delay", "3600")["id"]
    assert cli.json("cancel", one)["outcome"] == "cancelled"


def test_cli_looks_after_dead_letters(system: System, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [system.enqueue(QUEUE, {"chatId": f"19:{system.tag}@thread.v2", "content": "Lost"}) for _ in range(3)]
    for job in jobs:
        wait_for(lambda job=job: system.state(job), "dead")  # type: ignore[misc]
    group = next(one for one in cli.json("dead", "--queue", QUEUE)["groups"] if "NotFound" in one["pattern"])
    assert group["pattern"] in cli.text("dead")
    each = cli.json("dead", "--each", "--queue", QUEUE, "--pattern", group["pattern"])["items"]
    letters = {one["jobId"]: one["id"] for one in each}
    assert letters[str(jobs[0])] in cli.text("dead", "--each", "--limit", "200")
    assert cli.json("review", letters[str(jobs[0])], "no such chat")["reviewNote"] == "no such chat"
    assert "is reviewed by key 1" in cli.text("review", str(jobs[1]), "the same")
    done = cli.json("redrive", letters[str(jobs[0])])
    assert [one["id"] for one in done["redriven"]] == [letters[str(jobs[0])]]
    assert "runs again as" in cli.text("redrive", str(jobs[1]))
    assert "was redriven" in cli.run("retry", str(jobs[1]))[2]
    code, output, _ = cli.run("redrive", str(jobs[1]))
    assert code == Exit.REFUSED and "left as it is: the dead letter is redriven already" in output
    code, _, errors = cli.run("redrive", "--queue", QUEUE)
    assert code == Exit.USAGE and "--yes" in errors
    fitting = ("redrive", "--queue", QUEUE, "--error-class", "validation", "--died-before", "2026-01-01T00:00:00Z")
    assert cli.json(*fitting, "--yes") == {"redriven": [], "skipped": [], "more": False, "nextAt": None}
    of_group = ("discard", "--queue", QUEUE, "--pattern", group["pattern"])
    code, _, errors = cli.run(*of_group, "--yes")
    assert code == Exit.USAGE and "--note" in errors
    code, _, errors = cli.run(*of_group, "--note", "no such chat")
    assert code == Exit.USAGE and "--yes" in errors
    code, _, errors = cli.run("discard")
    assert code == Exit.USAGE and "--queue" in errors
    assert "No open dead letter fits." in cli.text(*of_group, "--note", "x", "--died-before", "2026-01-01T00:00:00Z")
    assert cli.json("discard", str(jobs[2]), "--note", "no such chat", "--yes")["discarded"] == [letters[str(jobs[2])]]
    code, _, errors = cli.run("discard", str(jobs[2]), "--yes")
    assert code == Exit.REFUSED and "discarded already" in errors
    assert "Given up at" in cli.text("show", str(jobs[2]))
    [line] = [line for line in cli.text("list", QUEUE, "--status", "dead").splitlines() if str(jobs[2]) in line]
    assert "dead, discarded" in line


def test_cli_gives_up_what_is_not_ours_after_its_number_is_typed(
    system: System, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.sql("delete from queue.dead_letter_queue where queue = 'sync'")  # of other tests, jobs too
    for number, body in enumerate(("eyJoZWxsbyI6ICJ3b3JsZCJ9", "not json")):
        system.sql("select queue.bury('sync', %s, 'it is no job', %s)", body, f"{system.tag}-{number}")
    [letter] = [one["id"] for one in cli.json("dead", "--each", "--queue", "sync")["items"] if one["text"][0] == "{"]
    text = cli.text("show", letter)
    assert '{"hello": "world"}' in text and "This is not one of our messages" in text and "storage queue sync" in text
    assert "not ours" in cli.text("dead", "--queue", "sync")
    order = ("discard", "--queue", "sync", "--foreign", "--note", "not for us")
    monkeypatch.setattr("local.q.session.is_asked", lambda: True)
    for typed, code in (("3", Exit.ATTENTION), ("2", Exit.DONE)):
        monkeypatch.setattr("typer.prompt", lambda *_, typed=typed, **__: typed)
        assert cli.run(*order)[0] == code, typed
    assert cli.json("show", letter)["reviewNote"] == "not for us"
    assert cli.json("dead", "--queue", "sync")["groups"] == []


def test_cli_operates_a_queue(system: System, cli: Cli) -> None:
    assert cli.text("pause", QUEUE) == f"{QUEUE} is paused.\n"
    assert cli.json("pause", QUEUE) == {"queue": QUEUE, "paused": True, "changed": False}
    job = system.send("Held")
    assert f"./dev q resume {QUEUE}" in cli.text("show", str(job))
    # Figures are counted for a tenth of the time only.
    wait_for(lambda: [one["paused"] for one in cli.json("list")["queues"] if one["queue"] == QUEUE], [True])
    assert any(line.startswith(QUEUE) and line.endswith("paused") for line in cli.text("list").splitlines())
    code, _, errors = cli.run("clear", QUEUE)
    assert code == Exit.USAGE and f"--yes {QUEUE}" in errors
    assert cli.run("clear", QUEUE, "--yes", "sync")[0] == Exit.ATTENTION and system.state(job) == "ready"
    assert cli.json("clear", QUEUE, "--yes", QUEUE) == {"queue": QUEUE, "cancelled": 1}
    assert cli.text("clear", QUEUE, "--yes", QUEUE) == f"0 jobs are cancelled in {QUEUE}.\n"
    assert cli.json("resume", QUEUE)["changed"] is True
    assert cli.text("resume", QUEUE) == f"{QUEUE} was not paused.\n"
    before = cli.json("limits", QUEUE)
    assert "3 in 10 s" in cli.text("limits", QUEUE, "--set", "keyRate=3/10")
    after = cli.json("limits", QUEUE, "--set", "keyRate=none")
    assert (after["keyRate"], after["concurrency"]) == (None, before["concurrency"])


def test_cli_shows_and_resets_limits(system: System, cli: Cli) -> None:
    assert cli.json("limits", "sync", "--set", "concurrency=3")["concurrency"] == 3
    every = {one["queue"]: one for one in cli.json("limits")["items"]}
    assert (every["sync"]["concurrency"], every["sync"]["builtIn"]["concurrency"]) == (3, 10)
    assert any(line.startswith("sync") and "of 3" in line for line in cli.text("limits").splitlines())
    shown = cli.json("limits", "sync", "--reset")
    assert (shown["concurrency"], shown["changedAt"]) == (10, None)
    assert "these are the built-in ones" in cli.text("limits", "sync")
    for wrong in (("limits", "--reset"), ("limits", "sync", "--reset", "--set", "rate=1/1")):
        assert cli.run(*wrong)[0] == Exit.USAGE


def test_cli_shows_sets_and_resets_thresholds(system: System, cli: Cli) -> None:
    place = f"dead-letters:{QUEUE}"
    try:
        found = cli.json("thresholds", "--set", f"{place}=7/never", "--set", "stalled=400/900")["items"]
        [mine] = [one for one in found if one["scope"] == QUEUE]
        assert (mine["warning"], mine["critical"], mine["builtInWarning"]) == (7, None, 50)
        [line] = [
            line for line in cli.text("thresholds").splitlines() if line.startswith("dead-letters  ") and QUEUE in line
        ]
        assert re.search(r"7 +never +50/500 +dead letters", line) and "by key 1" in line
        code, _, errors = cli.run("thresholds", "--set", f"{place}=9/3")
        assert code == Exit.REFUSED and "items.0.critical: it must not be below the warning" in errors
        again = cli.json("thresholds", "--set", f"{place}=/30")["items"]
        assert [(one["warning"], one["critical"]) for one in again if one["scope"] == QUEUE] == [(7, 30)]
        for wrong in ("backlog", "backlog=5", "backlog=five/6", "backlog=/"):
            assert cli.run("thresholds", "--set", wrong)[0] == Exit.USAGE
    finally:
        left = cli.json("thresholds", "--reset", place, "--reset", "stalled")["items"]
    assert not [one for one in left if one["changedBy"]]


def test_cli_shows_how_it_went_over_a_time(system: System, cli: Cli) -> None:
    """Of a queue that no timer writes figures of."""
    system.sql(
        "insert into queue.queue_statistics (queue, bucket_at, enqueued, completed, failed, dead, processed, ready)"
        " select %s, date_bin('5 minutes', clock_timestamp() - n * interval '5 minutes', 'epoch'), 10, 8, 2, 1, 8,"
        " 40 + n from generate_series(1, 3) n",
        system.tag,
    )
    assert cli.json("metrics", system.tag, "--range", "1h")["timeRange"] == "1h"
    steps = cli.text("metrics", system.tag, "--range", "1h").splitlines()
    assert sum(bool(re.search(r" 10 +8 +2 +1 +0 .*4[123]$", line)) for line in steps) == 3
    [whole] = [line for line in cli.text("metrics", "--range", "1h").splitlines() if line.startswith(system.tag)]
    assert re.search(r" 30 +24 +6 +3 +0 .*43$", whole)
    assert cli.run("metrics", "--range", "1y")[0] == Exit.REFUSED


def test_cli_shows_reports(system: System, cli: Cli) -> None:
    figures = summarise(date(2199, 12, 31), Material([], [], [], [], [], [], dict.fromkeys(
        ("watched", "live", "withProblem", "nextExpiry"))))  # fmt: skip
    system.sql(
        "insert into queue.daily_report (day, figures, subject, html) values ('2199-12-31', %s, 'A quiet day', '')",
        json.dumps(figures | {"slowest": [{"queue": "sync", "id": "job-7", "seconds": 0.25}]}),
    )
    try:
        assert cli.json("reports", "--limit", "1")["items"][0]["day"] == "2199-12-31"
        assert "A quiet day" in cli.text("reports")
        text = cli.text("report")
        assert text.startswith("A quiet day\n") and "250 ms" in text and "job-7" in text and "None." in text
        assert cli.text("report", "2199-12-31") == text
        assert cli.json("report", "2199-12-31")["figures"]["slowest"][0]["id"] == "job-7"
    finally:
        system.sql("delete from queue.daily_report where day = '2199-12-31'")
    assert cli.run("report", "2199-12-31")[0] == Exit.NOT_FOUND


@pytest.fixture
def schedule(system: System) -> Iterator[str]:
    name = f"cli-{system.tag}"
    yield name
    system.sql("delete from queue.scheduled_jobs where name = %s", name)


def test_cli_keeps_schedules(system: System, cli: Cli, schedule: str) -> None:
    fields = _fields(system.message("Good morning"))
    made = cli.json("schedules", "create", schedule, QUEUE, "0 7 1 1 *", *fields, "--time-zone", "Europe/Berlin")
    assert made["timeZone"] == "Europe/Berlin"
    assert [one["name"] for one in cli.json("schedules", "list")["items"]].count(schedule) == 1
    assert schedule in cli.text("schedules") and schedule in cli.text("schedules", "list")
    assert cli.json("schedules", "change", schedule, "--catch-up", "all")["catchUp"] == "all"
    assert "makes its next job at" in cli.text("schedules", "change", schedule, "--cron", "0 8 1 1 *", *fields)
    assert cli.run("schedules", "change", schedule)[0] == Exit.USAGE
    code, _, errors = cli.run("schedules", "change", schedule, "--cron", "never")
    assert code == Exit.REFUSED and errors.startswith("./dev q: cron: ")
    assert len(cli.json("schedules", "times", "0 7 * * mon")["times"]) == 5
    assert len(cli.text("schedules", "times", "0 7 * * mon", "--time-zone", "Europe/Berlin").splitlines()) == 5
    assert cli.text("schedules", "pause", schedule) == f"{schedule} is paused.\n"
    assert cli.json("schedules", "pause", schedule)["paused"] is True
    assert "makes its next job at" in cli.text("schedules", "resume", schedule)
    assert cli.json("schedules", "resume", schedule)["paused"] is False
    job = cli.json("schedules", "run", schedule)["id"]
    wait_for(lambda: system.state(job), "completed")
    assert "enqueued" in cli.text("schedules", "run", schedule)
    code, _, errors = cli.run("schedules", "create", schedule, QUEUE, "never", *fields)
    assert code == Exit.REFUSED and "already" in errors
    assert cli.json("schedules", "delete", schedule, "--yes") == {"name": schedule, "deleted": True}
    assert "makes its next job" in cli.text("schedules", "create", schedule, QUEUE, "0 7 1 1 *", *fields)
    assert cli.text("schedules", "delete", schedule, "--yes") == f"{schedule} is deleted.\n"
    assert cli.run("schedules", "delete", schedule, "--yes")[0] == Exit.NOT_FOUND


def test_cli_shows_alerts_and_the_audit_log(system: System, cli: Cli) -> None:
    key = f"cli:{system.tag}"
    [(alert,)] = system.sql(
        "insert into queue.queue_alerts (alert_key, level, title, details) values (%s, 'warning', %s, %s) returning id",
        key, "Something is odd", '{"remedy": "Look at it."}',
    )  # fmt: skip
    try:
        assert "Something is odd. Look at it." in cli.text("alerts")
        assert str(alert) in {one["id"] for one in cli.json("alerts", "list", "--level", "warning")["items"]}
        code, output, _ = cli.run("doctor")
        assert code == Exit.ATTENTION and f"DO    alert {key}: Something is odd" in output and "→ Look at it." in output
        assert cli.json("alerts", "show", str(alert))["remedy"] == "Look at it."
        shown = cli.text("alerts", "show", str(alert))
        assert "What to do now\nLook at it." in shown and f"./dev q alerts ack {alert}" in shown
        assert cli.json("alerts", "ack", str(alert))["acknowledgedBy"] == "key 1"
        assert "is acknowledged by key 1" in cli.text("alerts", "ack", str(alert))
        assert f"note  alert {key}" in cli.run("doctor")[1]
    finally:
        system.sql("delete from queue.queue_alerts where id = %s", alert)
    [newest, first] = cli.json("audit", "--target", f"alert:{alert}")["items"]
    assert newest["action"] == first["action"] == "alert.acknowledge"
    assert str(alert) in cli.text("audit", "--action", "alert.acknowledge", "--who", "key 1")


def test_cli_shows_what_is_watched_and_synced(system: System, cli: Cli) -> None:
    watched = cli.json("subscriptions")["items"]
    assert len(watched) == 2 and all(one["resource"] in cli.text("subscriptions") for one in watched)
    assert cli.text("subscriptions", "--status", "failing").endswith("There are no such watched resources.\n")
    [(made,)] = system.sql(
        "insert into queue.sync_history (resource_type, account, kind, finished_at, outcome)"
        " values ('emails', %s, 'delta', clock_timestamp(), 'completed') returning id",
        system.tag,
    )
    assert [one["id"] for one in cli.json("syncs", "--account", system.tag)["items"]] == [str(made)]
    assert system.tag in cli.text("syncs", "--type", "emails")


def test_cli_refusals_say_what_to_try(system: System, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    unknown = str(uuid4())
    for arguments, expected, told in (
        (("show", unknown), Exit.NOT_FOUND, "A search takes"),
        (("show", "nobody@fleet.example"), Exit.NOT_FOUND, "kept for 30 days"),
        (("pause", "nonsense"), Exit.NOT_FOUND, 'queue "nonsense" does not exist'),
        (("pause", "teams-outbund"), Exit.NOT_FOUND, "did you mean teams-outbound?"),
        (("dead", "--queue", "teams-outbund"), Exit.REFUSED, "did you mean teams-outbound?"),
        (("metrics", "teams-outbund"), Exit.REFUSED, "did you mean teams-outbound?"),
        (("thresholds", "--reset", "backlog:teams-outbund"), Exit.REFUSED, "items.0.scope"),
        (("enqueue", QUEUE, "chatId=19:x@thread.v2", "contnt=x"), Exit.REFUSED, " contnt: this field is not known"),
        (("enqueue", QUEUE, "content=x", "--expires-in", "-1"), Exit.REFUSED, "--expires-in: it must be longer"),
        (("enqueue", QUEUE, "content=x", "--option", "orderKey=x"), Exit.REFUSED, "did you mean orderingKey?"),
        (("enqueue", "notifications", 'userIds:=["a"]', "title=x", "channel=teams-activity"), Exit.REFUSED, "url: "),
        (("enqueue", QUEUE, "chatId=19:x@thread.v2"), Exit.REFUSED, "payload: content is empty"),
        (("enqueue", QUEUE, "content=x", "--priority", "11"), Exit.REFUSED, "priority"),
        (("enqueue", QUEUE), Exit.USAGE, "--file"),
        (("list", QUEUE, "--status", "gone"), Exit.REFUSED, "status: Input should be"),
        (("list", "--from", "soon"), Exit.USAGE, "2h (ago)"),
        (("limits", QUEUE, "--set", "rate=fast"), Exit.USAGE, "rate=400/20"),
        (("alerts", "ack", unknown), Exit.NOT_FOUND, "alert"),
        (("--url", "http://app.example", "list"), Exit.USAGE, "https://"),
        (("--url", f"http://127.0.0.1:{free_port()}", "list"), Exit.UNAVAILABLE, "./dev up"),
        (("--url", f"{system.stack.host_url}/elsewhere", "list"), Exit.UNAVAILABLE, "Is it the address"),
        (("--url", system.stack.host_url, "list"), Exit.NOT_ALLOWED, KEY),
        (("--token", "list"), Exit.USAGE, TOKEN),
    ):
        found, output, errors = cli.run(*arguments)
        assert (found, output) == (expected, ""), (arguments, errors)
        assert told in errors and "Traceback" not in errors and system.key not in errors
    monkeypatch.setenv(KEY, "wrong-" * 8)
    code, output, errors = cli.run("list")
    assert (code, output) == (Exit.NOT_ALLOWED, "") and KEY in errors and "wrong-" not in errors


def test_cli_takes_a_key_from_a_file_and_the_environment(
    system: System, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing_runs = Cli(dict, capsys)
    code, _, errors = nothing_runs.run("list")
    assert code == Exit.UNAVAILABLE and "./dev up" in errors and URL in errors
    (tmp_path / "key").write_text(f"{system.key}\n")
    file = ("--url", system.stack.host_url, "--key-file", str(tmp_path / "key"))
    assert nothing_runs.json(*file, "list")["queues"]
    with in_process({URL: f"{system.stack.host_url}/queue/", KEY: system.key}):
        assert QUEUE in nothing_runs.text("list")


def test_cli_tail_shows_a_job_as_it_ends(system: System) -> None:
    command = [sys.executable, "-m", "local.q", "tail", QUEUE, "--lines", "0", "--count", "2", "--json"]
    environment = os.environ | {URL: system.stack.host_url, KEY: system.key}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as tail:
        assert tail.stderr is not None
        assert tail.stderr.readline() == f"Following {QUEUE}; Ctrl-C ends it.\n"
        good, bad = system.send("Followed"), system.enqueue(QUEUE, {"chatId": "19:gone@thread.v2", "content": "Lost"})
        output, _ = tail.communicate(timeout=30)
    ended = {one["id"]: one["state"] for one in map(json.loads, output.splitlines())}
    assert tail.returncode == 0 and ended == {str(good): "completed", str(bad): "dead"}


def test_cli_doctor_names_a_missing_permission(system: System, cli: Cli) -> None:
    with in_process(system.environment):
        healthy = cli.run("doctor", "--json")
        system.graph.control(
            "POST", "app/consent", {"application": ["Mail.ReadWrite", "Chat.Read.All", "User.Read.All"]}
        )
        try:
            code, output, _ = cli.run("doctor")
        finally:
            system.graph.control("POST", "app/consent", {"application": APPLICATION_PERMISSIONS})
        system.graph.control("POST", "refuse", {"subject": "application", "error": "invalid_client", "code": 7000222})
        refused = cli.run("doctor")[1]
        system.graph.control("POST", "refuse", {"subject": "application"})
    assert code == Exit.ATTENTION
    assert "DO    Graph: the permission Mail.Send is missing, for sending mail" in output
    assert "DO    Graph: the permission ChannelMessage.Read.All" in output and "grant admin consent" in output
    assert "note  Graph: the permission Calendars.Read" in output
    assert "DO    Graph: no token for the application" in refused
    document = json.loads(healthy[1])
    parts = {one["part"]: one["level"] for one in document["findings"]}
    fine = ("app", "clock", "database", "storage", "settings", "admin API", "subscriptions", "Graph")
    assert {part: parts.get(part) for part in fine} == dict.fromkeys(fine, "ok"), document
    assert document["problems"] == sum(one["level"] == "problem" for one in document["findings"])


def test_cli_doctor_without_an_app_or_a_key_says_so(system: System, capsys: pytest.CaptureFixture[str]) -> None:
    nothing_runs = Cli(dict, capsys)
    code, output, _ = nothing_runs.run("--url", f"http://127.0.0.1:{free_port()}", "doctor")
    assert code == Exit.ATTENTION and "DO    app:" in output and "./dev up" in output
    code, output, _ = nothing_runs.run("--url", system.stack.host_url, "doctor")
    assert code == Exit.ATTENTION and "DO    admin API:" in output and KEY in output and "ok    database" in output
