"""Blobs on Azurite: ranges of one version, and failures that say what to do and nothing secret."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from local.azurite import KEY, Azurite
from local.process import free_port
from shared.engine.errors import JobError, NetworkError, RejectedError
from shared.storage.blobs import StorageBlobs

BLOB = "attachments/tours/7/Grüße aus Ulm.bin"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    azurite = Azurite(Path(tmp_path_factory.mktemp("blobs")) / "data", blob=True)
    azurite.start()
    yield azurite
    azurite.stop()


@pytest.fixture(scope="module")
def blobs(server: Azurite) -> StorageBlobs:
    blobs = StorageBlobs(server.connection_string, ["attachments"])
    blobs.create("attachments")
    blobs.create("attachments")
    return blobs


def test_a_blob_is_read_range_by_range(blobs: StorageBlobs) -> None:
    content = bytes(range(256)) * 20_000
    blobs.write(BLOB, content)
    facts = blobs.facts(BLOB)
    assert facts.size == len(content)
    parts = [blobs.read(BLOB, facts, at, min(1_000_000, facts.size - at)) for at in range(0, facts.size, 1_000_000)]
    assert b"".join(parts) == content


def test_a_blob_that_was_written_anew_is_not_mixed_with_what_it_was(blobs: StorageBlobs) -> None:
    blobs.write(BLOB, b"old" * 100)
    facts = blobs.facts(BLOB)
    blobs.write(BLOB, b"new" * 100)
    with pytest.raises(NetworkError, match="was changed"):
        blobs.read(BLOB, facts, 0, 10)


def test_a_blob_that_is_not_there_is_told_with_the_remedy(blobs: StorageBlobs) -> None:
    with pytest.raises(RejectedError, match="there is no blob attachments/none: upload it"):
        blobs.facts("attachments/none")


def test_an_empty_blob_has_no_range_and_is_not_asked_for_one(blobs: StorageBlobs) -> None:
    blobs.write("attachments/empty", b"")
    facts = blobs.facts("attachments/empty")
    assert facts.size == 0
    assert blobs.read("attachments/empty", facts, 0, 0) == b""


@pytest.mark.parametrize("container", ["azure-webjobs-secrets", "attachments2", ""])
def test_other_containers_are_closed_whatever_they_hold(server: Azurite, blobs: StorageBlobs, container: str) -> None:
    with pytest.raises(RejectedError, match="BLOB_CONTAINERS"):
        blobs.facts(f"{container}/host.json")


def test_a_storage_that_is_away_is_told_as_such_and_without_its_key() -> None:
    address = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={KEY};"
    away = StorageBlobs(f"{address}BlobEndpoint=http://127.0.0.1:{free_port()}/a;", ["attachments"])
    with pytest.raises(JobError) as caught:
        away.facts("attachments/a")
    assert isinstance(caught.value, NetworkError)
    assert KEY not in str(caught.value) and "127.0.0.1" not in str(caught.value)
