"""Whose a connection is, out of Linux's table, and which requests are answered."""

import os
import socket
import sys

import pytest
from local_sagemaker.api.callers import LOOPBACK, objection, user_of_connection

linux = pytest.mark.skipif(sys.platform != "linux", reason="the table is Linux's")


@pytest.fixture
def connection():
    """(the client's port, the server's), connected."""
    with socket.create_server((LOOPBACK, 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            yield client.getsockname()[1], server.getsockname()[1]


@linux
def test_a_connection_is_its_users(connection):
    assert user_of_connection(*connection) == os.getuid()
    assert user_of_connection(1, connection[1]) is None


def test_where_there_is_no_table_nothing_is_known(connection, tmp_path):
    assert user_of_connection(*connection, table=tmp_path / "none") is None


@linux
def test_another_user_is_refused_and_root_is_not(connection, monkeypatch):
    ports = {
        "HTTP_HOST": "127.0.0.1:80",
        "REMOTE_PORT": str(connection[0]),
        "SERVER_PORT": str(connection[1]),
    }
    assert objection(ports) is None
    monkeypatch.setattr(os, "getuid", lambda: 4242)  # whose endpoint it is
    asked_by = user_of_connection(*connection)
    assert objection(ports) is None if asked_by == 0 else "belongs to another user" in objection(ports)
    monkeypatch.setattr("local_sagemaker.api.callers.user_of_connection", lambda *ports: 1000)
    assert "(user 1000 asked)" in objection(ports)


@pytest.mark.parametrize("host", ["127.0.0.1:4000", "localhost:4000", "localhost"])
def test_programs_of_this_machine_are_answered(host):
    assert objection({"HTTP_HOST": host}) is None
