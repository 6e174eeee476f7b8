"""Blob storage: what attachments are read from, range by range. Azure's and Azurite's protocol are the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import requests
from azure.core import MatchConditions
from azure.core.exceptions import AzureError, HttpResponseError, ResourceExistsError, ResourceNotFoundError
from azure.core.pipeline.transport import RequestsTransport
from azure.storage.blob import BlobClient, BlobServiceClient
from requests.adapters import HTTPAdapter

from shared.engine.errors import NetworkError, RejectedError
from shared.handlers.services import BlobFacts

CONNECTIONS = 16
#: Of one range of at most a few megabytes, with all tries.
TIMEOUT_SECONDS = 15
RETRIES = 2
_CHANGED = 412


class StorageBlobs:
    """See shared.handlers.services.Blobs. One a process; thread-safe.

    `credential` where the address is a URL and not a connection string. Only blobs of `containers` are read: the
    account may hold others, above all the host's secrets.
    """

    def __init__(self, address: str, containers: Sequence[str], credential: Any = None) -> None:
        session = requests.Session()
        session.mount("http://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        session.mount("https://", HTTPAdapter(pool_maxsize=CONNECTIONS))
        options: dict[str, Any] = {
            "transport": RequestsTransport(session=session, session_owner=False),
            "connection_timeout": TIMEOUT_SECONDS,
            "read_timeout": TIMEOUT_SECONDS,
            "retry_total": RETRIES,
            "retry_connect": RETRIES,
            "retry_read": RETRIES,
            "initial_backoff": 0.2,
            "increment_base": 1,
            "secondary_read": False,
        }
        if "=" in address and not address.startswith("http"):
            self._service = BlobServiceClient.from_connection_string(address, **options)
        else:
            self._service = BlobServiceClient(address, credential=credential, **options)
        self._containers = frozenset(containers)

    def facts(self, blob: str) -> BlobFacts:
        """Size and etag. Raises RejectedError, NetworkError."""
        with _failures(blob):
            found = self._client(blob).get_blob_properties()
        return BlobFacts(int(found.size), str(found.etag))

    def read(self, blob: str, facts: BlobFacts, at: int, size: int) -> bytes:
        """A range of the blob as `facts` describe it. Raises RejectedError, NetworkError."""
        if size == 0:
            return b""  # the service has no empty range
        with _failures(blob):
            stream = self._client(blob).download_blob(
                at, size, etag=facts.etag, match_condition=MatchConditions.IfNotModified
            )
            content = stream.readall()
        if len(content) != size:
            raise NetworkError(f"the blob {blob} gave {len(content)} bytes of {size}")
        return content

    def write(self, blob: str, content: bytes) -> None:
        """Keep a blob, in place of one of that name. Raises RejectedError, NetworkError."""
        with _failures(blob):
            self._client(blob).upload_blob(content, overwrite=True)

    def create(self, container: str) -> None:
        """Make a container; does nothing when it is there."""
        with _failures(container):
            try:
                self._service.create_container(container)
            except ResourceExistsError:
                return

    def _client(self, blob: str) -> BlobClient:
        container, _, name = blob.partition("/")
        if container not in self._containers:
            raise RejectedError(
                f'blobs of the container "{container}" are not sent: BLOB_CONTAINERS names those that are'
            )
        return self._service.get_blob_client(container, name)


@contextmanager
def _failures(blob: str) -> Iterator[None]:
    """The library's failures without its texts, which may hold a signed address."""
    try:
        yield
    except ResourceNotFoundError as error:
        raise RejectedError(f"there is no blob {blob}: upload it, then redrive the job") from error
    except HttpResponseError as error:
        if error.status_code == _CHANGED:
            raise NetworkError(f"the blob {blob} was changed while it was read") from error
        raise NetworkError(f"blob {blob}: {_reason(error)}") from error
    except AzureError as error:
        raise NetworkError(f"blob {blob}: {_reason(error)}") from error


def _reason(error: AzureError) -> str:
    code = getattr(error, "error_code", None)
    return str(getattr(code, "value", code) or type(error).__name__)
