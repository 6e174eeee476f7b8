"""Who may use the admin API: a key, a token of Microsoft Entra, or a person whom App Service has signed in.

Whoever proves nothing gets nothing, and whoever guesses is slowed down over all instances together. What is right
always passes: a guesser can slow down nobody but other guessers.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import Any, Protocol

log = logging.getLogger(__name__)

KEY_HEADER = "x-admin-key"
#: What App Service sets, and takes away from what clients send, where its authentication is on.
PRINCIPAL_HEADER = "x-ms-client-principal"
#: So many refusals in a minute, over all instances, are no mistake any more.
MOST_REFUSALS = 20
WINDOW_SECONDS = 60.0
#: How often at most a process writes down what it has refused.
FLUSH_SECONDS = 1.0
LONGEST_CREDENTIAL = 16 * 1024


class Role(IntEnum):
    """Each may do what those before it may."""

    READER = 1
    OPERATOR = 2
    ADMIN = 3

    @property
    def title(self) -> str:
        """As app roles in Entra are called, and as answers say it."""
        return self.name.capitalize()


ROLES = {role.title: role for role in Role}


@dataclass(frozen=True, slots=True)
class Principal:
    """Who asks. `kind` is `key`, `token` or `app-service`; `role` None: known, and allowed nothing."""

    name: str
    kind: str
    role: Role | None


class Verdict(Enum):
    """Why nobody is let in."""

    REFUSED = "refused"
    SLOWED = "slowed"


class TokensUnavailableError(Exception):
    """Nothing can be said of a token now: the keys that sign them cannot be had."""


#: Of a good token who it is for and the names of the roles; None for any other. Raises TokensUnavailableError.
TokenReader = Callable[[str], tuple[str, Iterable[str]] | None]


class Refusals(Protocol):
    """What all instances have refused lately."""

    def add(self, count: int) -> int | None:
        """Add to this minute's; how many it were in the last minute, None while that cannot be told."""
        ...


class AdminAccess:
    """Compares keys as digests, so that neither length nor content shows in the time it takes."""

    def __init__(
        self,
        *keys: str,
        tokens: TokenReader | None = None,
        app_service: bool = False,
        refusals: Refusals | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._digests = [_digest(key) for key in keys]
        self._tokens = tokens
        self._app_service = app_service
        self._counter = _Counter(refusals, clock)

    def identify(self, headers: Mapping[str, str]) -> Principal | Verdict:
        """Whom the headers prove. One that sends a credential is judged by the first of key, token, App Service.

        Raises TokensUnavailableError.
        """
        key, bearer = headers.get(KEY_HEADER), headers.get("authorization", "")
        if key is not None:
            return self._by_key(key) or self._refuse("key")
        if bearer[:7].lower() == "bearer " and self._tokens is not None:
            return self._by_token(bearer[7:].strip()) or self._refuse("token")
        if self._app_service and (given := headers.get(PRINCIPAL_HEADER)):
            return _by_app_service(given) or self._refuse("app-service")
        return Verdict.REFUSED

    def _by_key(self, given: str) -> Principal | None:
        digest = _digest(given)
        found = [hmac.compare_digest(digest, known) for known in self._digests]
        return Principal(f"key {found.index(True) + 1}", "key", Role.ADMIN) if any(found) else None

    def _by_token(self, token: str) -> Principal | None:
        if self._tokens is None or len(token) > LONGEST_CREDENTIAL:
            return None
        read = self._tokens(token)
        return Principal(read[0], "token", highest_role(read[1])) if read is not None else None

    def _refuse(self, kind: str) -> Verdict:
        if self._counter.refuse():
            log.error("admin.guessing", extra={"kind": kind, "refusals": MOST_REFUSALS, "seconds": WINDOW_SECONDS})
            return Verdict.SLOWED
        log.warning("admin.refused", extra={"kind": kind})
        return Verdict.REFUSED


def highest_role(names: Iterable[str]) -> Role | None:
    return max((ROLES[name] for name in names if name in ROLES), default=None)


class _Counter:
    """Counts here at once, and over all instances once a second: a flood of guesses is no flood of writes."""

    def __init__(self, refusals: Refusals | None, clock: Callable[[], float]) -> None:
        self._refusals = refusals
        self._clock = clock
        self._lock = threading.Lock()
        self._here: deque[float] = deque(maxlen=MOST_REFUSALS)
        self._unwritten = 0
        self._everywhere = 0
        self._next_write = 0.0

    def refuse(self) -> bool:
        """Count one; True when it is one too many."""
        now = self._clock()
        with self._lock:
            slowed = len(self._here) == MOST_REFUSALS and now - self._here[0] < WINDOW_SECONDS
            self._here.append(now)
            self._unwritten += 1
            write = 0
            if self._refusals is not None and now >= self._next_write:
                write, self._unwritten, self._next_write = self._unwritten, 0, now + FLUSH_SECONDS
        if write and self._refusals is not None:
            total = self._refusals.add(write)
            with self._lock:
                if total is None:
                    self._unwritten += write
                else:
                    self._everywhere = total
        with self._lock:
            return slowed or self._everywhere > MOST_REFUSALS


def _by_app_service(given: str) -> Principal | None:
    """Whom App Service says that it has signed in: base64 of JSON with the claims."""
    try:
        document = json.loads(base64.b64decode(given[:LONGEST_CREDENTIAL], validate=True))
        claims = [(str(one["typ"]), str(one["val"])) for one in document["claims"]]
        name_type, role_type = document.get("name_typ"), document.get("role_typ")
    except (binascii.Error, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None
    name = _first(claims, ("preferred_username", str(name_type), "name", "appid", "azp"))
    roles = [value for kind, value in claims if kind in (role_type, "roles")]
    return Principal(name, "app-service", highest_role(roles)) if name else None


def _first(claims: list[tuple[str, Any]], kinds: Iterable[str]) -> str:
    return next((value[:200] for kind in kinds for found, value in claims if found == kind and value), "")


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
