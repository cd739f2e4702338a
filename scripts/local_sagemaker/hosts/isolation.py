"""How a host gets its own /opt/ml and its name without Docker: chosen once, by trying.

In order of preference: Linux namespaces as root, namespaces as an ordinary user, proot, and, where none
of them works (macOS, locked-down CI), path rewriting: /opt/ml and the master's address are replaced in the
request's arguments, environment and hyperparameters and in the SDK's drivers, so user code must use the SM_*
variables. None of them protects the machine from a job: see "What isolation cannot stop" in README.md.
"""

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

ENTER_HOST = Path(__file__).with_name("enter_host.sh")
CONTAINER_ROOT = "/opt/ml"
MODES = ("root", "user", "proot", "rewrite")
_MEANING = {
    "root": "Linux namespaces as root",
    "user": "Linux namespaces as an ordinary user",
    "proot": "proot",
    "rewrite": "path rewriting (scripts must use SM_* variables instead of /opt/ml)",
}
_UNSHARE = ["--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc", "--propagation", "private"]


class IsolationError(RuntimeError):
    """The isolation that was asked for does not work on this machine."""


@dataclass(frozen=True)
class Isolation:
    """One of MODES, and what it means for paths, names and processes."""

    mode: str

    @property
    def meaning(self) -> str:
        """The mode in words, for the log."""
        return _MEANING[self.mode]

    @property
    def rewrites(self) -> bool:
        """Whether a job sees its files under their real paths instead of /opt/ml."""
        return self.mode == "rewrite"

    @property
    def names_hosts(self) -> bool:
        """Whether each host has its name as its own (`hostname`), not only in /etc/hosts."""
        return self.mode in ("root", "user")

    @property
    def wraps(self) -> bool:
        """Whether the container's first process is a child of the command (see supervisor)."""
        return self.mode != "rewrite"

    def command(self, argv: list[str], *, ml: Path, hosts_file: Path, name: str, scratch: Path) -> list[str]:
        """`argv` wrapped so that it runs with `ml` as /opt/ml, `hosts_file` as /etc/hosts, as host `name`."""
        if self.mode == "rewrite":
            return argv
        if self.mode == "proot":
            binds = ["-b", f"{ml}:{CONTAINER_ROOT}", "-b", f"{hosts_file}:/etc/hosts"]
            return ["proot", *binds, "-w", f"{CONTAINER_ROOT}/code", *argv]
        who = ["--user", "--map-root-user"] if self.mode == "user" else []
        enter = ["sh", str(ENTER_HOST), str(ml), str(hosts_file), name, str(scratch)]
        return ["unshare", *who, *_UNSHARE, *enter, *argv]


def choose(wanted: str | None = None) -> Isolation:
    """The first mode that works here; `wanted` asks for one mode and no other.

    Raises IsolationError, with the tool's own message, when `wanted` does not work.
    """
    if wanted:
        complaint = try_mode(Isolation(wanted))
        if complaint:
            raise IsolationError(f"Isolation '{wanted}' does not work on this machine: {complaint}")
        return Isolation(wanted)
    return next(Isolation(mode) for mode in MODES if try_mode(Isolation(mode)) is None)


def try_mode(isolation: Isolation) -> str | None:
    """None if a process can see its own /opt/ml and host name in this mode, else why not."""
    if isolation.mode == "rewrite":
        return None
    tool = "proot" if isolation.mode == "proot" else "unshare"
    if sys.platform != "linux" or shutil.which(tool) is None:
        return f"there is no {tool} here"
    with tempfile.TemporaryDirectory(prefix="lsm-probe-") as folder:
        ml, hosts_file = Path(folder) / "ml", Path(folder) / "hosts"
        (ml / "code").mkdir(parents=True)
        (ml / "proof").write_text("seen")
        hosts_file.write_text("127.0.0.1 localhost\n127.0.0.2 algo-1\n")
        check = f"grep -q algo-1 /etc/hosts && cat {CONTAINER_ROOT}/proof"
        command = isolation.command(
            ["sh", "-c", check], ml=ml, hosts_file=hosts_file, name="algo-1", scratch=Path(folder) / "opt"
        )
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=20)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return None if done.stdout == "seen" else done.stderr.strip() or f"it ended with {done.returncode}"
