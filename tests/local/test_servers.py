"""PostgreSQL and Azurite as the local stack runs them: crashes, damaged folders, taken ports."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from azure.storage.queue import QueueClient

from local.azurite import Azurite
from local.postgres import PostgresServer
from local.process import ProcessError, free_port


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    server = PostgresServer(tmp_path_factory.mktemp("servers") / "data")
    server.start()
    yield server
    server.stop("immediate")


def count(server: PostgresServer) -> int:
    with psycopg.connect(server.dsn) as connection:
        row = connection.execute("SELECT count(*) FROM kept").fetchone()
    return int(row[0]) if row else -1


def test_committed_rows_survive_every_way_to_end(server: PostgresServer) -> None:
    server.start()
    with psycopg.connect(server.dsn) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS kept (id int)")
        connection.execute("TRUNCATE kept")
    ends: list[Callable[[], None]] = [server.stop, lambda: server.stop("immediate"), server.kill]
    for expected, end in enumerate(ends, start=1):
        with psycopg.connect(server.dsn) as connection:
            connection.execute("INSERT INTO kept VALUES (1)")
        end()
        assert not server.is_running()
        server.start()
        assert count(server) == expected


def test_a_second_start_takes_the_running_server_over(server: PostgresServer) -> None:
    server.start()
    other = PostgresServer(server.folder)
    other.start()
    assert other.port == server.port
    assert other.identity == server.identity


def test_a_pid_file_that_names_another_process_does_not_stop_the_start(server: PostgresServer) -> None:
    server.start()
    server.stop()
    # As after a crash and a restart of the machine: the pid is somebody else's now.
    (server.folder / "postmaster.pid").write_text(f"1\n{server.folder}\n0\n{free_port()}\n\n127.0.0.1\n")
    server.start()
    assert server.is_running()


def test_a_data_folder_of_another_version_is_told(server: PostgresServer, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    (folder / "global").mkdir(parents=True)
    (folder / "global" / "pg_control").write_bytes(b"")
    (folder / "PG_VERSION").write_text("12\n")
    with pytest.raises(ProcessError, match=r"made by PostgreSQL 12.*reset"):
        PostgresServer(folder).start()


def test_an_interrupted_initdb_is_begun_again(tmp_path: Path) -> None:
    half = tmp_path / "data.new"
    half.mkdir()
    (half / "PG_VERSION").write_text("18\n")
    server = PostgresServer(tmp_path / "data", settings={"fsync": "off"})
    server.start()
    server.stop("immediate")
    assert not half.exists()


def test_a_folder_with_other_things_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "precious").write_text("mine")
    with pytest.raises(ProcessError, match="not a whole PostgreSQL data folder"):
        PostgresServer(tmp_path / "data").start()
    assert (tmp_path / "data" / "precious").read_text() == "mine"


def test_a_taken_port_is_told_with_the_servers_words(server: PostgresServer) -> None:
    server.start()
    server.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        other = PostgresServer(server.folder, taken.getsockname()[1])
        with pytest.raises(ProcessError, match="could not bind"):
            other.start()


@pytest.fixture
def azurite_server(tmp_path: Path) -> Iterator[Azurite]:
    server = Azurite(tmp_path / "queues")
    server.start()
    yield server
    server.kill()


def put(server: Azurite) -> None:
    with QueueClient.from_connection_string(server.connection_string, "jobs") as queue:
        queue.create_queue()
        queue.send_message("kept")


def test_azurite_saves_when_it_is_stopped(azurite_server: Azurite) -> None:
    put(azurite_server)
    azurite_server.stop()
    azurite_server.start()
    with QueueClient.from_connection_string(azurite_server.connection_string, "jobs") as queue:
        assert [message.content for message in queue.receive_messages()] == ["kept"]


def test_azurite_starts_again_after_a_kill(azurite_server: Azurite) -> None:
    put(azurite_server)
    azurite_server.kill()
    azurite_server.start()
    with QueueClient.from_connection_string(azurite_server.connection_string, "another") as queue:
        queue.create_queue()
        queue.send_message("works")
        assert [message.content for message in queue.receive_messages()] == ["works"]


def test_azurite_that_cannot_start_says_why(azurite_server: Azurite, tmp_path: Path) -> None:
    other = Azurite(tmp_path / "other", azurite_server.port)
    other.launch()
    with pytest.raises(ProcessError, match=r"Azurite ended at its start[\s\S]*EADDRINUSE"):
        other.process.wait_ready(lambda: False)
    shutil.rmtree(tmp_path / "other", ignore_errors=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another account run the server")
def test_a_way_that_was_closed_to_the_servers_account_is_opened_again(server: PostgresServer) -> None:
    server.start()
    server.stop()
    server.folder.parent.chmod(0o700)  # as pytest does with its folders at every start
    server.start()
    assert server.is_running()
