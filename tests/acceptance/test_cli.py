"""./dev q against the running system: each command as text and as JSON, refusals, tail, doctor."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from local.fake_graph.registration import APPLICATION_PERMISSIONS
from local.process import free_port
from local.q.app import main
from local.q.errors import Exit
from local.q.target import KEY, TOKEN, URL
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
    assert found in cli.json("list", "--search", name)["items"]  # beside the job that tells of the dead letter
    assert any(QUEUE in line and made["id"] in line for line in cli.text("list", "--search", name).splitlines())
    shown = cli.json("show", made["id"])
    text = cli.text("show", made["id"])
    [call] = shown["attempts"][0]["details"]["graph_calls"]
    assert f"request-id {call['request_id']}" in text and f"client-request-id {call['client_request_id']}" in text
    assert "404" in text and "validation: Graph answered 404" in text and '"content": "Lost"' in text
    now = text.partition("What to do now\n")[2]
    assert "Correct the source" in now and f"./dev q discard {shown['deadLetterId']}" in now
    assert cli.text("show", shown["deadLetterId"]) == text


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
    code, _, errors = cli.run("redrive", "--queue", QUEUE)
    assert code == Exit.USAGE and "--yes" in errors
    fitting = ("redrive", "--queue", QUEUE, "--error-class", "validation", "--died-before", "2026-01-01T00:00:00Z")
    assert cli.json(*fitting, "--yes") == {"redriven": [], "skipped": [], "more": False}
    assert cli.json("discard", str(jobs[2]), "--yes")["state"] == "discarded"
    code, _, errors = cli.run("discard", str(jobs[2]), "--yes")
    assert code == Exit.REFUSED and "discarded already" in errors
    assert "it was given up" in cli.text("show", str(jobs[2]))


def test_cli_operates_a_queue(system: System, cli: Cli) -> None:
    assert cli.text("pause", QUEUE) == f"{QUEUE} is paused.\n"
    assert cli.json("pause", QUEUE) == {"queue": QUEUE, "paused": True, "changed": False}
    job = system.send("Held")
    # Figures are as old as two seconds.
    wait_for(lambda: f"./dev q resume {QUEUE}" in cli.text("show", str(job)), True)
    figures = next(one for one in cli.json("list")["queues"] if one["queue"] == QUEUE)
    assert figures["paused"] is True
    assert any(line.startswith(QUEUE) and line.endswith("paused") for line in cli.text("list").splitlines())
    code, _, errors = cli.run("clear", QUEUE)
    assert code == Exit.USAGE and f"--yes {QUEUE}" in errors
    assert cli.run("clear", QUEUE, "--yes", "sync")[0] == Exit.ATTENTION and system.state(job) == "ready"
    assert cli.json("clear", QUEUE, "--yes", QUEUE) == {"queue": QUEUE, "cancelled": 1}
    assert cli.text("clear", QUEUE, "--yes", QUEUE) == f"0 jobs of {QUEUE} are cancelled.\n"
    assert cli.json("resume", QUEUE)["changed"] is True
    assert cli.text("resume", QUEUE) == f"{QUEUE} was not paused.\n"
    before = cli.json("limits", QUEUE)
    assert "3 in 10 s" in cli.text("limits", QUEUE, "--set", "keyRate=3/10")
    after = cli.json("limits", QUEUE, "--set", "keyRate=none")
    assert (after["keyRate"], after["concurrency"]) == (None, before["concurrency"])


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
        (("show", unknown), Exit.NOT_FOUND, "no job with this id"),
        (("pause", "nonsense"), Exit.NOT_FOUND, 'queue "nonsense" does not exist'),
        (("enqueue", QUEUE, "chatId=19:x@thread.v2"), Exit.REFUSED, "payload: content is empty"),
        (("enqueue", QUEUE, "content=x", "--priority", "11"), Exit.REFUSED, "priority"),
        (("enqueue", QUEUE), Exit.USAGE, "--file"),
        (("list", QUEUE, "--status", "gone"), Exit.REFUSED, "status: Input should be"),
        (("list", "--status", "dead"), Exit.USAGE, "./dev q list QUEUE"),
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
