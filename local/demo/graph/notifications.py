"""Part 4: users and applications are told, on the channel of their choice, and on the next when that one fails."""

from __future__ import annotations

from local.demo import samples
from local.demo.report import Report
from local.demo.world import World
from shared import bootstrap

STEP = 4
ENDPOINT = "fleet"


def play(world: World, report: Report) -> None:
    report.heading(STEP, "Notifications: the activity feed of Teams, push to phones, signed webhooks")
    producer = bootstrap.producer()
    insert = "insert into queue.notification_routes (user_id, channels, endpoint) values (%s, %s, %s)"
    world.sql(insert, samples.DRIVER_ID, ["teams-activity", "push"], None)
    world.sql(insert, "kim", ["webhook", "push"], ENDPOINT)
    text = {"title": "Gate 7 is free", "body": "Until 18:30", "data": {"trip": 7}, "url": TEAMS_LINK}
    world.fault(times=2, path=f"users/{samples.DRIVER_ID}/teamwork", kind="status", status=403)
    users = [samples.DRIVER_ID, samples.DISPATCH_ID, "kim", "lee"]
    producer.enqueue("notifications", {**text, "userIds": users[:3]})
    producer.enqueue("notifications", {**text, "userIds": [users[3]], "channel": "push"})
    event = {"title": "Trip 7 has ended", "channel": "webhook", "endpoint": ENDPOINT, "type": "trip.ended"}
    world.fault(path="/receivers/", kind="lose-answer")
    producer.enqueue("notifications", event)
    report.wait(
        STEP,
        "activity feed: the dispatcher's; refused for the driver, whose next choice is push",
        1,
        lambda: len(world.graph.activity(samples.DISPATCH_ID)),
    )
    report.wait(STEP, "push notifications that the hub took", "driver, lee", lambda: pushed(world))
    report.wait(
        STEP,
        "webhooks taken by a receiver that checks signatures, one after its answer was lost, each once",
        "notification, trip.ended",
        lambda: ", ".join(sorted(one["type"] for one in world.graph.control("GET", f"received/{ENDPOINT}"))),
    )


TEAMS_LINK = "https://teams.microsoft.com/l/chat/0/0?users=dispatch@fleet.example"


def pushed(world: World) -> str:
    names = {f"$UserId:{{{samples.DRIVER_ID}}}": "driver", "$UserId:{lee}": "lee"}
    return ", ".join(sorted(names[notice["tags"]] for notice in world.graph.control("GET", "push-notices")))
