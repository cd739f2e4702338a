"""Who is at the other end of a connection: requests of other users of this machine and of web pages are refused.

A job runs commands as the endpoint's user, so whoever may start one may do all that this user may.
"""

import ipaddress
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Linux's tables of connections: https://www.kernel.org/doc/Documentation/networking/proc_net_tcp.txt. A client may have come by
# way of IPv6, from ::ffff:127.0.0.1.
_CONNECTIONS = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_ANY = "00000000:0000"  # the other end of a socket that listens
_LOOKS = 3  # at tables that change while they are read, so that a row can be passed over
_ROOT = 0  # may do anything anyhow
NOBODY = -1  # the client has closed its socket: whose it was is not known any more


def objection(environ: Mapping[str, str]) -> str | None:
    """Why the request of this WSGI environment is not answered; None if it comes from a program of this user.

    Browsers say where a page comes from (Origin, or Sec-Fetch-Site where there is none, as for an image), and a name that was
    rebound to 127.0.0.1 shows in the Host header. Whose program it is says Linux; elsewhere it is not known.
    """
    host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
    site = environ.get("HTTP_SEC_FETCH_SITE", "none")
    if "HTTP_ORIGIN" in environ or site != "none" or host not in (LOOPBACK, "localhost"):
        return "only for programs on this machine, not for web pages"
    client = environ.get("REMOTE_ADDR", LOOPBACK), int(environ.get("REMOTE_PORT") or 0)
    server_port = int(environ.get("SERVER_PORT") or 0)
    user = user_of_connection(client, server_port)
    if user == _ROOT:
        # A socket that is closed while its row is made can look like root's; it has no row the next time.
        user = user_of_connection(client, server_port)
    if user == NOBODY:
        return "the program that asked has closed its connection, so that its user is not known: keep it open for the answer"
    if user not in (None, os.getuid(), _ROOT):
        return f"this endpoint belongs to another user of this machine: start one of your own (user {user} asked)"
    return None


def user_of_connection(
    client: tuple[str, int], server_port: int, tables: Sequence[Path] = _CONNECTIONS
) -> int | None:
    """User id of the program that connected from `client` (IPv4 address and port) to a port of LOOPBACK.

    NOBODY if no program has that socket. None where the system has no such tables, or keeps sockets out of them: not even that
    of the server itself is there.
    """
    listening = f"{_address(LOOPBACK)}:{server_port:04X}"
    server_is_there = False
    ends = [
        [f"{_address(prefix + address)}:{port:04X}" for address, port in (client, (LOOPBACK, server_port))]
        for prefix in ("", "::ffff:")
    ]
    for _ in range(_LOOKS):
        for connection, user, inode in _rows(tables):
            if connection in ends and inode:  # a closed socket has none, and is listed as root's
                return user
            server_is_there |= connection == [listening, _ANY] and inode != 0
    return NOBODY if server_is_there else None


def _rows(tables: Sequence[Path]) -> Iterator[tuple[list[str], int, int]]:
    """Both ends, the user and the inode of every socket. Without IPv6 there is only the first table."""
    for table in filter(Path.exists, tables):
        for fields in map(str.split, table.read_text().splitlines()[1:]):
            yield fields[1:3], int(fields[7]), int(fields[9])


def _address(text: str) -> str:
    """An address as the kernel prints it: each four of its bytes as a number of this machine."""
    packed = ipaddress.ip_address(text).packed
    words = (packed[start : start + 4] for start in range(0, len(packed), 4))
    return "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
