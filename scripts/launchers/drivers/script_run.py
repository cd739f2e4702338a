"""What the drivers share, inside a job: run the entry script with live output, and say why it failed."""

import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

FAILURE_FILE = Path(os.environ.get("SM_OUTPUT_FAILURE", "/opt/ml/output/failure"))
LOG_TAIL_LINES = 200
FAILURE_LOG_LINES = 10  # SageMaker shows what of them fits into 1,024 characters
# "ValueError: text", also as "[rank0]: ValueError: text"; launchers report the script's death with these two.
_ERROR_LINE = re.compile(r"^(?:\[[^\]]*\]:?\s*)?((?:\w+\.)*\w*(?:Error|Exception|Interrupt|Exit)\b.*)$")
_LAUNCHER_ERRORS = ("CalledProcessError", "ChildFailedError")


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
    """Pass a process's output on, byte for byte, until it ends.

    Returns:
        (exit code, last LOG_TAIL_LINES lines). The exit code of a process that signal n has ended is 128 + n.
    """
    tail: deque[str] = deque(maxlen=LOG_TAIL_LINES)
    assert process.stdout
    with process:
        for line in process.stdout:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            tail.append(line.decode(errors="replace").rstrip())
    code = process.returncode
    return (128 - code if code < 0 else code), list(tail)


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
    if code == 137:
        reason = "killed, most likely because the machine ran out of memory"
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
