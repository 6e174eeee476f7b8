"""I8: while PostgreSQL is away, work waits and notifications keep coming; afterwards all of it happens, once."""

from __future__ import annotations

from local.demo import samples
from tests.acceptance.system import System, wait_for

JOBS = 24
MAILS = 5


def mail(system: System, number: int) -> bytes:
    return samples.plain_mail(number).replace(b"<depot-", f"<{system.tag}-".encode())


def test_nothing_is_lost_and_nothing_doubled(system: System) -> None:
    system.graph.set_automatic_delivery(False)
    # Workers that lose the database in the middle of a job are given up soon.
    system.sql("update queue.queue_settings set lease_seconds = 5, wake_size = 2")
    system.fault(JOBS, path="/chats/", kind="delay", seconds=0.5)
    contents = [f"alert {number:02}" for number in range(JOBS)]
    made = system.ask("teams-outbound", [{"payload": system.message(content)} for content in contents])
    jobs = [one["id"] for one in made.json()["jobs"]]
    wait_for(lambda: len(system.texts()) >= 2, True)
    system.stack.stop_postgres("immediate")
    try:
        for number in range(MAILS):
            system.graph.arrive_mail(samples.DISPATCH, mail(system, number))
        assert {one["status"] for one in system.graph.deliver(batch=False)} == {202}
        system.put("teams-outbound", {"payload": system.message("from a foreign producer")})
        for queue in ("webhooks", "teams-outbound"):
            wait_for(lambda queue=queue: put_back(system, queue), True)  # type: ignore[misc]
    finally:
        system.stack.start_postgres()
    expected = sorted([*contents, "from a foreign producer"])
    wait_for(lambda: len(system.texts()) >= len(expected), True)
    wait_for(system.unfinished, 0)
    wait_for(lambda: stored(system), MAILS)
    assert sorted(system.texts()) == expected
    states = system.sql("select state, count(*) from queue.jobs where id = any(%s::uuid[]) group by 1", jobs)
    assert states == [("completed", JOBS)]
    # A sync may have stored a mail before its notification became a job.
    wait_for(lambda: len(inbound(system)), MAILS)
    assert len(set(inbound(system))) == MAILS


def inbound(system: System) -> list[str]:
    """What the jobs of these mails were made for."""
    found = system.sql(
        "select external_id from queue.communication_logs where internet_message_id like %s", f"<{system.tag}-%"
    )
    resources = [str(job.payload["resource"]) for job in system.jobs("outlook-inbound")]
    return [one for one in resources if any(one.endswith(row[0]) for row in found)]


def put_back(system: System, queue: str) -> bool:
    """Whether a worker has put a message of this queue back since the database went away."""
    return any(line["event"] == "message.put_back" and line["queue"] == queue for line in system.log_lines())


def stored(system: System) -> int:
    return system.count(
        "select count(*) from queue.communication_logs where direction = 'in' and internet_message_id like %s",
        f"<{system.tag}-%",
    )
