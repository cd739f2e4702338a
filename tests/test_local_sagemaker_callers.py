"""Whose a connection is, out of Linux's tables, and which requests are answered."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from local_sagemaker.api.callers import LOOPBACK, NOBODY, objection, user_of_connection
from werkzeug.serving import make_server

linux = pytest.mark.skipif(sys.platform != "linux", reason="the tables are Linux's")
FOREIGN = 65534
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
# A program that connects in some way, sends a request and prints the answer.
CLIENT = """
import encodings.idna, os, socket, sys  # nothing after setuid: Python itself may lie in a folder of root's
user, port, request = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3].encode()
if user != os.getuid():
    os.setuid(user)
client = socket.socket({family})
client.bind(({source!r}, 0))
client.connect(({target!r}, port))
client.sendall(request)
{then}
"""
ANSWER = "print(client.makefile().read())"
WAYS = {
    "as usual": ("AF_INET", LOOPBACK, LOOPBACK, ANSWER),
    "from another loopback address": ("AF_INET", "127.0.0.2", LOOPBACK, ANSWER),
    "by IPv6": ("AF_INET6", f"::ffff:{LOOPBACK}", f"::ffff:{LOOPBACK}", ANSWER),
    "half closed": ("AF_INET", LOOPBACK, LOOPBACK, f"client.shutdown(socket.SHUT_WR); {ANSWER}"),
}


@pytest.fixture
def connection():
    """(the client's address and port, the server's port), connected."""
    with socket.create_server((LOOPBACK, 0)) as server:
        with socket.create_connection(server.getsockname()) as client:
            yield client.getsockname(), server.getsockname()[1]


@pytest.fixture
def server():
    """An HTTP server that answers with the objection to a request, and keeps them in its `said`."""
    said = []

    def answer(environ, start_response):
        said.append(objection(environ))
        start_response("200 OK", [])
        return [str(said[-1]).encode()]

    with make_server(LOOPBACK, 0, answer) as http:
        http.said = said
        yield http


def ask(server, user: int, way: tuple[str, str, str, str]) -> subprocess.Popen:
    family, source, target, then = way
    script = CLIENT.format(family=f"socket.{family}", source=source, target=target, then=then)
    arguments = [str(user), str(server.server_port), REQUEST.decode()]
    return subprocess.Popen([sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, text=True)


def environment(connection) -> dict[str, str]:
    (address, port), server_port = connection
    ports = {"REMOTE_PORT": str(port), "SERVER_PORT": str(server_port)}
    return {"HTTP_HOST": f"{LOOPBACK}:{server_port}", "REMOTE_ADDR": address, **ports}


@linux
def test_a_connection_is_its_users(connection):
    assert user_of_connection(*connection) == os.getuid()
    assert user_of_connection((LOOPBACK, 1), connection[1]) == NOBODY


def test_where_there_is_no_table_nothing_is_known(connection, tmp_path):
    assert user_of_connection(*connection, tables=[tmp_path / "none"]) is None


@linux
def test_a_table_that_lacks_the_server_itself_says_nothing(connection, tmp_path):
    header = Path("/proc/net/tcp").read_text().splitlines()[0]
    (tmp_path / "tcp").write_text(f"{header}\n")
    assert user_of_connection(*connection, tables=[tmp_path / "tcp"]) is None


@linux
def test_another_user_is_refused_and_root_is_not(connection, monkeypatch):
    environ = environment(connection)
    assert objection(environ) is None
    monkeypatch.setattr(os, "getuid", lambda: 4242)  # whose endpoint it is
    asked_by = user_of_connection(*connection)
    assert objection(environ) is None if asked_by == 0 else "belongs to another user" in objection(environ)
    monkeypatch.setattr("local_sagemaker.api.callers.user_of_connection", lambda *ends: 1000)
    assert "(user 1000 asked)" in objection(environ)


@linux
@pytest.mark.parametrize("way", WAYS)
def test_a_client_of_this_user_is_answered_whatever_its_way(server, way):
    client = ask(server, os.getuid(), WAYS[way])
    server.handle_request()
    assert client.communicate(timeout=20)[0].endswith("None\n")


@linux
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_a_client_of_another_user_is_refused_whatever_its_way(server, way):
    client = ask(server, FOREIGN, WAYS[way])
    server.handle_request()
    assert f"(user {FOREIGN} asked)" in client.communicate(timeout=20)[0]


@linux
def test_a_client_that_is_gone_when_it_is_looked_for_is_refused(server):
    """Its socket is listed as root's, who is not refused."""
    assert ask(server, os.getuid(), ("AF_INET", LOOPBACK, LOOPBACK, "client.close()")).wait(20) == 0
    server.handle_request()
    assert "has closed its connection" in server.said[0]


@linux
def test_where_there_is_no_ipv6_the_other_table_is_enough(connection, tmp_path):
    tables = [Path("/proc/net/tcp"), tmp_path / "none"]
    assert user_of_connection(*connection, tables=tables) == os.getuid()


@pytest.mark.parametrize("host", ["127.0.0.1:4000", "localhost:4000", "localhost"])
def test_programs_of_this_machine_are_answered(host, connection):
    assert objection(environment(connection) | {"HTTP_HOST": host}) is None
