"""Work on one host: its order, its trace, its health, its end."""

from __future__ import annotations

import requests

from tests.acceptance.system import System, wait_for


def test_a_resumed_queue_works_in_the_order_of_priority(system: System) -> None:
    settings = "update queue.queue_settings set paused = %s, wake_size = 50 where queue = 'teams-outbound'"
    system.sql(settings, True)
    priorities = [8, 3, 10, 1, 5, 8, 1, 10, 3, 5, 2, 9]
    jobs = [{"payload": system.message(f"{p}/{n:02}"), "priority": p} for n, p in enumerate(priorities)]
    assert system.ask("teams-outbound", jobs).status_code == 202
    wait_for(lambda: system.storage.visible("teams-outbound", 1), 0)
    ready = "select count(*) from queue.jobs where queue = 'teams-outbound' and state = 'ready'"
    assert system.count(ready) == len(jobs) and system.texts() == []
    system.sql(settings, False)
    wait_for(lambda: len(system.texts()), len(jobs))
    in_order = sorted(enumerate(priorities), key=lambda one: (one[1], one[0]))
    assert system.texts() == [f"{priority}/{number:02}" for number, priority in in_order]


def test_one_correlation_id_from_the_request_to_graph(system: System) -> None:
    trip = f"trip-{system.tag}"
    job_id = system.send("traced", correlationId=trip)
    wait_for(lambda: system.state(job_id), "completed")
    shown = requests.get(
        f"{system.stack.host_url}/queue/jobs/{job_id}", headers={"x-admin-key": system.key}, timeout=10
    ).json()
    assert shown["correlationId"] == trip and shown["state"] == "completed"
    [attempt] = system.job(job_id)["attempts"]
    [call] = attempt["details"]["graph_calls"]
    [request] = [one for one in system.requests("POST", "/chats/") if "traced" in str(one["body"])]
    assert request["headers"]["client-request-id"] == call["client_request_id"]
    assert request["answerHeaders"]["request-id"] == call["request_id"]
    assert [one["details"]["graph_calls"] for one in shown["attempts"]] == [[call]]
    [logged] = system.sql("select correlation_id, job_id from queue.communication_logs where job_id = %s", job_id)
    assert logged == (trip, job_id)

    def completions() -> list[str]:
        return [
            line["correlation_id"]
            for line in system.log_lines()
            if line["event"] == "job.completed" and line["job_id"] == str(job_id)
        ]

    wait_for(completions, [trip])


def test_health_names_what_is_away_and_recovers(system: System) -> None:
    def health() -> tuple[int, str, dict[str, str]]:
        answer = requests.get(f"{system.stack.host_url}/queue/health", timeout=20)
        seen.append(answer.text)
        return answer.status_code, answer.json()["status"], answer.json()["checks"]

    seen: list[str] = []
    well = (200, "ok", {"database": "ok", "storage": "ok"})
    wait_for(health, well)
    system.stack.stop_postgres()
    try:
        wait_for(health, (503, "unavailable", {"database": "away", "storage": "ok"}))
        refused = system.ask("teams-outbound", {"payload": system.message("while it is away")})
        assert refused.status_code == 503 and int(refused.headers["Retry-After"]) > 0
        assert refused.headers["content-type"].startswith("application/problem+json")
    finally:
        system.stack.start_postgres()
    wait_for(health, well)
    port = str(system.stack.postgres.port)
    for text in (*seen, refused.text):
        assert not [word for word in (system.key, "postgresql://", "127.0.0.1", port, "AccountKey") if word in text]


def test_a_host_that_is_told_to_stop_finishes_its_job(system: System) -> None:
    system.fault(body="finish me", kind="delay", seconds=2.0)
    job_id = system.send("finish me")
    wait_for(lambda: system.state(job_id), "active")
    wait_for(system.texts, ["finish me"])
    try:
        assert system.stack.stop_host() == 0
        assert system.state(job_id) == "completed"
        assert [one["outcome"] for one in system.job(job_id)["attempts"]] == ["completed"]
        assert system.count("select count(*) from queue.jobs where state = 'active'") == 0
        system.put("teams-outbound", {"payload": system.message("next")})
    finally:
        system.stack.start_host()
    wait_for(system.texts, ["finish me", "next"])
