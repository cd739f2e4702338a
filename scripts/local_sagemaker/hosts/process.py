"""A process that cannot outlive the endpoint: the endpoint's handle on one supervisor.py."""

import subprocess
import sys
from pathlib import Path

SUPERVISOR = Path(__file__).with_name("supervisor.py")


class SupervisedProcess:
    """A command run under a supervisor, with its output (stdout and stderr together) on a pipe."""

    def __init__(
        self, command: list[str], *, environment: dict[str, str], folder: Path, wrapped: bool = False
    ):
        """`wrapped`: the container's first process is a child of `command` (see supervisor.py)."""
        how = "wrapped" if wrapped else "direct"
        self._popen = subprocess.Popen(
            [sys.executable, "-I", str(SUPERVISOR), how, *command],
            env=environment,
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        assert self._popen.stdout and self._popen.stdin  # they are pipes
        self.output, self._orders = self._popen.stdout, self._popen.stdin

    def exit_code(self) -> int | None:
        """The command's exit code (128 + n if signal n ended it), None while it runs."""
        return self._popen.poll()

    def terminate(self) -> None:
        """Send SIGTERM as `docker stop` does: to the first process alone, and a shell ignores it there."""
        try:
            self._orders.write(b"terminate\n")
            self._orders.flush()
        except (BrokenPipeError, ValueError):
            pass  # it has just ended, or is being killed

    def kill(self) -> None:
        """Kill the command and everything that it started."""
        try:
            self._orders.close()
        except BrokenPipeError:
            pass  # it has just ended

    def wait(self) -> int:
        """Wait for the end; returns the exit code."""
        return self._popen.wait()
