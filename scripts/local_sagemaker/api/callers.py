"""Who is at the other end of a connection: requests of other users of this machine and of web pages are refused.

A job runs commands as the endpoint's user, so whoever may start one may do all that this user may.
"""

import functools
import os
import sys
from collections.abc import Mapping
from pathlib import Path

LOOPBACK = "127.0.0.1"
# Linux's table of connections: https://www.kernel.org/doc/Documentation/networking/proc_net_tcp.txt
_CONNECTIONS = Path("/proc/net/tcp")
_ROOT = 0  # may do anything anyhow


def objection(environ: Mapping[str, str]) -> str | None:
    """Why the request of this WSGI environment is not answered; None if it comes from a program of this user.

    Browsers say where a page comes from (Origin, or Sec-Fetch-Site where there is none, as for an image), and a name that was
    rebound to 127.0.0.1 shows in the Host header. Whose program it is says Linux; elsewhere it is not known.
    """
    host = environ.get("HTTP_HOST", "").rsplit(":", 1)[0]
    site = environ.get("HTTP_SEC_FETCH_SITE", "none")
    if "HTTP_ORIGIN" in environ or site != "none" or host not in (LOOPBACK, "localhost"):
        return "only for programs on this machine, not for web pages"
    user = user_of_connection(int(environ.get("REMOTE_PORT") or 0), int(environ.get("SERVER_PORT") or 0))
    if user not in (None, os.getuid(), _ROOT):
        return f"this endpoint belongs to another user of this machine: start one of your own (user {user} asked)"
    return None


def user_of_connection(port: int, server_port: int, table: Path = _CONNECTIONS) -> int | None:
    """User id of the program that connected from a loopback port to a loopback port; None where that is not known."""
    ends = [f"{_address()}:{number:04X}" for number in (port, server_port)]
    try:
        lines = table.read_text().splitlines()[1:]
    except OSError:
        return None
    return next((int(fields[7]) for fields in map(str.split, lines) if fields[1:3] == ends), None)


@functools.cache
def _address() -> str:
    """127.0.0.1 as the kernel prints it: its four bytes as a number of this machine."""
    return f"{int.from_bytes(bytes(map(int, LOOPBACK.split('.'))), sys.byteorder):08X}"
