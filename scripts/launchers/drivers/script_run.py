"""What the drivers share, inside a job: run the entry script with live output, and say why it failed."""

import os
import re
import subprocess
import sys
import threading
from collections import deque
from pathlib import Path

FAILURE_FILE = Path(os.environ.get("SM_OUTPUT_FAILURE", "/opt/ml/output/failure"))
LOG_TAIL_LINES = 200
HELD_S = 10.0  # that a process which the script left behind may go on holding its output
FAILURE_LOG_LINES = 10  # SageMaker shows what of them fits into 1,024 characters
# "ValueError: text", also as "[rank0]: ValueError: text"; launchers report the script's death with these two.
_ERROR_LINE = re.compile(r"^(?:\[[^\]]*\]:?\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b.*)$")
_LAUNCHER_ERRORS = ("CalledProcessError", "ChildFailedError")
# How accelerate and torchrun report a process that the system killed, whose own words there are none.
_KILLED = re.compile(r"died with <Signals\.SIGKILL|exitcode\s*: -9\b")


def last_error(lines: list[str]) -> str | None:
    """The last line in which Python names an error, launchers' own reports left out."""
    for line in reversed(lines):
        match = _ERROR_LINE.match(line)
        if match and not any(name in line for name in _LAUNCHER_ERRORS):
            return match[1]
    return None


def start_script(command: list[str], environment: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
    """Start `command` with its output, stdout and stderr together, on a pipe for `stream_output`."""
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment)


def stream_output(process: subprocess.Popen[bytes]) -> tuple[int, list[str]]:
    """Pass a process's output on, byte for byte, until the process ends, and HELD_S longer if others hold its output.

    Returns:
        (exit code, last LOG_TAIL_LINES lines). The exit code of a process that signal n has ended is 128 + n.
    """
    tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
    reader = threading.Thread(target=_pass_on, args=(process, tail), daemon=True)
    reader.start()
    code = process.wait()
    reader.join(HELD_S)
    if reader.is_alive():  # a job, paid for by the second, would last as long as that process
        print(
            "The script has ended; a process that it left behind holds its output and is not waited for.",
            flush=True,
        )
    return (128 - code if code < 0 else code), list(tail)


def _pass_on(process: subprocess.Popen[bytes], tail: deque[str]) -> None:
    assert process.stdout
    rest = b""
    while chunk := os.read(process.stdout.fileno(), 65_536):
        sys.stdout.buffer.write(chunk)
        sys.stdout.buffer.flush()
        *lines, rest = (rest + chunk).split(b"\n")
        tail.extend(line.decode(errors="replace").rstrip() for line in lines)
    if rest:
        tail.append(rest.decode(errors="replace").rstrip())


def run(command: list[str]) -> tuple[int, list[str]]:
    """Run `command` and pass its output on; returns what `stream_output` does."""
    return stream_output(start_script(command))


def write_failure(code: int, command: list[str], lines: list[str]) -> None:
    """Write why the job failed to the failure file, unless the script (or another process of it) has done so.

    Args:
        code: exit code of the script.
        command: how it was started.
        lines: the end of its log, in which its error is looked for.
    """
    if FAILURE_FILE.exists() and FAILURE_FILE.stat().st_size > 0:
        return
    reason = last_error(lines)
    if code == 137 or (reason is None and any(_KILLED.search(line) for line in lines)):
        reason = "killed (SIGKILL), most likely because the machine ran out of memory"
    elif reason is None:
        end = [line for line in lines if line.strip()][-FAILURE_LOG_LINES:]
        reason = "\n".join(["The script ended without a Python error. The end of its log:", *end])
    FAILURE_FILE.parent.mkdir(parents=True, exist_ok=True)
    FAILURE_FILE.write_text(f"{reason}\n(exit code {code} of: {' '.join(command)})\n")


def prepend_failure(reason: str) -> None:
    """Write `reason` to the failure file above whatever the script has written there."""
    before = FAILURE_FILE.read_text(errors="replace") if FAILURE_FILE.exists() else ""
    FAILURE_FILE.parent.mkdir(parents=True, exist_ok=True)
    FAILURE_FILE.write_text(f"{reason}\n\n{before}".rstrip() + "\n")


def set_gpu_network() -> None:
    """Tell NCCL and libfabric, through the environment, which network interface joins the hosts."""
    from common.utils import SM_EFA_NCCL_INSTANCES, SM_EFA_RDMA_INSTANCES

    os.environ.setdefault("NCCL_SOCKET_IFNAME", os.environ["SM_NETWORK_INTERFACE_NAME"])
    if os.environ["SM_CURRENT_INSTANCE_TYPE"] in SM_EFA_NCCL_INSTANCES:
        os.environ["FI_PROVIDER"] = "efa"
    if os.environ["SM_CURRENT_INSTANCE_TYPE"] in SM_EFA_RDMA_INSTANCES:
        os.environ["FI_EFA_USE_DEVICE_RDMA"] = "1"
        os.environ["RDMAV_FORK_SAFE"] = "1"
