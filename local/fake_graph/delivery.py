"""Delivery of change notifications: by itself as things change, with retries, or on a control call's demand."""

from __future__ import annotations

import asyncio
import copy
import random
import uuid
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from local.fake_graph.call import Json
from local.fake_graph.handshake import DELIVERY_SECONDS, RETRY_SECONDS, Result, post
from local.fake_graph.rich import pick, split_resource
from local.fake_graph.state import TENANT, Change, World
from local.fake_graph.subscription import Subscription
from local.fake_graph.subscription_book import WITHHELD_FOR

#: Graph retries for 4 h with growing pauses; these suit a laptop.
FIRST_PAUSE = 0.5
LONGEST_PAUSE = 10.0
GIVE_UP_SECONDS = 4 * 3600
#: Changes within this time go out together.
GATHER_SECONDS = 0.02
#: How often to look whether the right to deliver runs out.
LOOK_SECONDS = 0.2
BATCH = 100


@dataclass(slots=True)
class Demand:
    """How a control call wants the pending notifications delivered."""

    batch: bool = True
    duplicates: int = 0
    shuffle: bool = False
    forge: int = 0


@dataclass(slots=True)
class Deliverer:
    """Listens to the world, and posts what its subscriptions are to hear."""

    world: World
    base_url: str
    automatic: bool = True
    pending: list[tuple[str, Json]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    #: What Graph has no right to deliver now: since when, the subscription's id, the item.
    withheld: list[tuple[datetime, str, Json]] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)
    _threads: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(16, "delivery"))
    _epoch: int = 0

    async def start(self) -> None:
        self.world.listeners.append(self.hear)
        self._spawn(self._run())
        self._spawn(self._look_after_rights())

    async def stop(self) -> None:
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def reset(self) -> None:
        """Forget everything; what is still being retried stops."""
        self._epoch += 1
        self.automatic = True
        self.pending.clear()
        self.withheld.clear()
        self.results.clear()

    def set_automatic(self, on: bool) -> None:
        self.automatic = on
        self._wake.set()

    def hear(self, change: Change) -> None:
        for subscription in self.world.live_subscriptions():
            kinds = subscription.value["changeType"].replace(" ", "").split(",")
            if subscription.scope in change.scopes and change.change_type in kinds:
                item = notification(subscription, change)
                if subscription.value["includeResourceData"]:
                    resource = pick(change.resource, split_resource(subscription.value["resource"])[1])
                    resource |= {"id": item["resourceData"]["id"]}
                    item["encryptedContent"] = self.world.publisher.encrypt(subscription.value, resource)
                if self.world.book.may_deliver(subscription):
                    self.pending.append((subscription.value["notificationUrl"], item))
                else:
                    self.withheld.append((self.world.book.now(), subscription.id, item))
        if self.pending:
            self._wake.set()

    async def deliver(self, demand: Demand) -> list[Json]:
        """Deliver what is pending now; what fails is pending again. A list of {url, status, seconds, items}."""
        batches = arrange(self._take(), demand)
        results = await asyncio.gather(*(self._post(url, items, DELIVERY_SECONDS) for url, items in batches))
        report: list[Json] = []
        for (url, items), result in zip(batches, results, strict=True):
            if not result.is_delivered:
                self.pending.extend((url, item) for item in items)
            report.append(result.as_json() | {"items": items})
        return report

    async def lifecycle(self, subscription: Subscription, event: str) -> Json:
        """Post a lifecycle notification; subscriptionRemoved also removes it."""
        item = lifecycle_item(subscription, event)
        if event == "subscriptionRemoved":
            self.world.subscriptions.pop(subscription.id, None)
        url = subscription.value["lifecycleNotificationUrl"]
        result = await self._post(url, [item], DELIVERY_SECONDS)
        return result.as_json() | {"items": [item]}

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            if not (self.automatic and self.pending):
                continue
            await asyncio.sleep(GATHER_SECONDS)
            for url, items in arrange(self._take(), Demand()):
                self._spawn(self._insist(url, items, self._epoch))

    async def _look_after_rights(self) -> None:
        """Ask for the right to deliver before it runs out, and deliver what waited for it, or tell that it is lost."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            if self.automatic:
                for url, item in [*self._askings(), *self._lost()]:
                    self._spawn(self._insist(url, [item], self._epoch))
            self._release()

    def _askings(self) -> Iterator[tuple[str, Json]]:
        for subscription in self.world.live_subscriptions():
            url = subscription.value["lifecycleNotificationUrl"]
            if url and self.world.book.wants_right(subscription):
                yield url, lifecycle_item(subscription, "reauthorizationRequired")

    def _lost(self) -> Iterator[tuple[str, Json]]:
        """For each subscription that lost notifications, one `missed`; Teams does not tell."""
        oldest = self.world.book.now() - WITHHELD_FOR
        ids = {subscription_id for since, subscription_id, _ in self.withheld if since < oldest}
        self.withheld = [one for one in self.withheld if one[0] >= oldest]
        for subscription in self.world.live_subscriptions():
            url = subscription.value["lifecycleNotificationUrl"]
            if subscription.id in ids and url and "mailbox" in subscription.quotas:
                yield url, lifecycle_item(subscription, "missed")

    def _release(self) -> None:
        live = {subscription.id: subscription for subscription in self.world.live_subscriptions()}
        kept = []
        for since, subscription_id, item in self.withheld:
            subscription = live.get(subscription_id)
            if subscription is None:
                continue
            if self.world.book.may_deliver(subscription):
                self.pending.append((subscription.value["notificationUrl"], item))
                self._wake.set()
            else:
                kept.append((since, subscription_id, item))
        self.withheld = kept

    async def _insist(self, url: str, items: list[Json], epoch: int) -> None:
        """Until it is delivered, or Graph would give up."""
        loop = asyncio.get_running_loop()
        give_up_at, pause, seconds = loop.time() + GIVE_UP_SECONDS, FIRST_PAUSE, DELIVERY_SECONDS
        while loop.time() < give_up_at and epoch == self._epoch:
            result = await self._post(url, items, seconds)
            if result.is_delivered:
                return
            await asyncio.sleep(pause)
            pause, seconds = min(pause * 2, LONGEST_PAUSE), RETRY_SECONDS

    async def _post(self, url: str, items: list[Json], seconds: float) -> Result:
        loop = asyncio.get_running_loop()
        body: Json = {"value": items}
        if tokens := self.world.publisher.tokens(items, self.base_url):
            body["validationTokens"] = tokens
        result = await loop.run_in_executor(self._threads, post, url, body, seconds)
        self.results.append(result)
        return result

    def _take(self) -> list[tuple[str, Json]]:
        taken = list(self.pending)
        self.pending.clear()
        return taken

    def _spawn(self, work: Any) -> None:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def lifecycle_item(subscription: Subscription, event: str) -> Json:
    """A lifecycle notification in Graph's shape: it names no resource."""
    return {
        "subscriptionId": subscription.id,
        "subscriptionExpirationDateTime": subscription.value["expirationDateTime"],
        "tenantId": TENANT,
        "clientState": subscription.value["clientState"],
        "lifecycleEvent": event,
    }


def notification(subscription: Subscription, change: Change) -> Json:
    """One item in Graph's shape."""
    named = change.immutable if subscription.immutable_ids else change.plain
    data = {"@odata.type": change.odata_type}
    if named is not None:
        data |= {"@odata.id": named[0], "id": named[1]}
    if change.etag is not None:
        data["@odata.etag"] = change.etag
    return ({"id": str(uuid.uuid4())} if named is not None else {}) | {
        "subscriptionId": subscription.id,
        "subscriptionExpirationDateTime": subscription.value["expirationDateTime"],
        "clientState": subscription.value["clientState"],
        "changeType": change.change_type,
        "resource": named[0] if named is not None else subscription.value["resource"].strip("/"),
        "tenantId": TENANT,
        "resourceData": data,
    }


def arrange(pending: list[tuple[str, Json]], demand: Demand) -> list[tuple[str, list[Json]]]:
    """Group by address into posts of at most 100 items that mix subscriptions, with what the demand adds."""
    by_url: dict[str, list[Json]] = defaultdict(list)
    for url, item in pending:
        by_url[url].append(item)
    batches: list[tuple[str, list[Json]]] = []
    for url, genuine in by_url.items():
        items = genuine + [copy.deepcopy(genuine[number % len(genuine)]) for number in range(demand.duplicates)]
        items += [forged(genuine[number % len(genuine)]) for number in range(demand.forge)]
        if demand.shuffle:
            random.shuffle(items)
        size = BATCH if demand.batch else 1
        batches += [(url, items[start : start + size]) for start in range(0, len(items), size)]
    return batches


def forged(genuine: Json) -> Json:
    """A notification that nobody who knows the client state would send, of a message that does not exist."""
    false_id = f"forged-{uuid.uuid4().hex}"
    item = copy.deepcopy(genuine)
    item |= {"id": str(uuid.uuid4()), "clientState": f"forged-{uuid.uuid4().hex}"}
    data = item["resourceData"]
    if "id" in data:
        item["resource"] = item["resource"].replace(data["id"], false_id)
        data |= {"id": false_id, "@odata.id": item["resource"]}
    return item
