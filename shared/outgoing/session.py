"""The HTTP session for addresses that come from settings: it connects to the public internet only."""

from __future__ import annotations

from typing import Any

import requests

from shared.http_session import HttpSession
from shared.outgoing.addresses import PublicAddresses

#: Nobody needs more of an answer to a webhook than this.
ANSWER_BYTES = 64 * 1024


class PublicSession(HttpSession):
    """Checks the address of every connection at the moment it is made, and reads no more than ANSWER_BYTES."""

    def __init__(self, addresses: PublicAddresses, **options: Any) -> None:
        super().__init__(resolve=addresses.resolve, **options)

    def request(self, method: str | bytes, url: str | bytes, *args: Any, **kwargs: Any) -> requests.Response:
        return super().request(method, url, *args, at_most=ANSWER_BYTES, **kwargs)
