"""From a notification of what is no message (an event, a contact, a drive) to the job that looks what has changed."""

from __future__ import annotations

import re
from contextlib import suppress
from datetime import timedelta
from typing import Any

from shared.engine.job import Debounce, NewJob
from shared.handlers.inbound import either, ids, segment
from shared.handlers.lifecycle import lifecycle_job

SYNC = "sync"
#: Changes come in swarms (a series that is moved, a folder that is filled); one sync finds them all.
QUIET = timedelta(seconds=5)
AT_MOST = timedelta(seconds=30)

_ITEM = re.compile(
    rf"users{segment('user')}(?:/contactFolders{segment('folder')})?/(?P<what>events|contacts){segment('item')}",
    re.IGNORECASE,
)
_DRIVE = re.compile(rf"users{segment('user')}/drive/root", re.IGNORECASE)
_OTHER_DRIVE = re.compile(rf"drives{segment('drive')}/root", re.IGNORECASE)
_DRIVE_ITEM = "#microsoft.graph.driveitem"
_TYPES = {"events": "calendar", "contacts": "contacts"}


def changed_job(
    resource: str, subscription_id: str, key: str, declared: str | None = None, odata_type: str = ""
) -> NewJob | None:
    """The job for a change of what the path names; None where nothing follows from it. `key` is the change's own.

    An owner's changes of one kind become one sync, a few seconds after the last of them. Of a drive by its id, or by
    SharePoint's (then its `odata_type` tells what it is), only the subscription's declaration knows whose it is.
    `declared` is the declaration's name of the user, where it is known by now: with it the job counts for the same
    limits as all others of the mailbox.
    """
    found = _changed(resource)
    if found is not None:
        return _sync(found[0], declared or found[1], subscription_id)
    if odata_type.lower() == _DRIVE_ITEM or _OTHER_DRIVE.fullmatch(resource.strip("/")):
        return lifecycle_job(subscription_id, "missed", key)
    return None


def is_users(resource: str) -> bool:
    """Whether a path names something that is synced for a user whom it names."""
    return _changed(resource) is not None


def _changed(resource: str) -> tuple[str, str] | None:
    """What has changed, as a sync calls it, and of which user."""
    with suppress(ValueError):
        found = ids(_ITEM, resource)
        return _TYPES[str(found["what"]).lower()], str(either(found, "user"))
    with suppress(ValueError):
        return "files", str(either(ids(_DRIVE, resource), "user"))
    return None


def _sync(resource_type: str, user: str, subscription_id: str) -> NewJob:
    payload: dict[str, Any] = {
        "resourceType": resource_type,
        "userId": user,
        "subscriptionId": subscription_id,
        "fullSync": False,
    }
    name = f"changed:{resource_type}:{user.lower()}"
    return NewJob(SYNC, payload, unique=Debounce(name, QUIET, AT_MOST), correlation_id=name)
