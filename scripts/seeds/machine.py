"""Where results come from: the machine in words, and the revision of the code."""

import os
import platform
import re
import subprocess
from pathlib import Path

from workshop.checks.instances import find_instance
from workshop.folders import REPOSITORY
from workshop.session.connection import git_revision

SHOWN = 12  # digits of a revision


def machine_name(mode: str, instance_type: str) -> str:
    """ "Intel Xeon Platinum 8488C, 2 cores" in local mode, else "ml.g6.xlarge, 1 x L4"."""
    if mode == "local":
        return f"{_cpu_model()}, {os.cpu_count() or 1} cores"
    found = find_instance(instance_type)
    return f"{instance_type}, {found.gpus} x {found.gpu.name}" if found and found.gpu else instance_type


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    named = [line.partition(":")[2] for line in lines if line.startswith("model name")]
    if not named and platform.system() == "Darwin":
        asked = subprocess.run(["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True)
        named = [asked.stdout]
    words = re.sub(r"\((R|TM)\)|\bCPU\b|@.*", " ", named[0] if named else "")
    return " ".join(words.split()) or platform.machine() or "unknown CPU"


def revision() -> str:
    """The commit, with "-dirty" where files were changed: other ones than the records themselves."""
    commit, dash, dirty = git_revision().partition("-")
    if dash and not _changed_beside_records():
        dash, dirty = "", ""
    return f"{commit[:SHOWN]}{dash}{dirty}"


def _changed_beside_records() -> bool:
    command = ["git", "diff", "--quiet", "HEAD", "--", ".", ":(exclude,glob)*/recorded/*.csv"]
    return subprocess.run(command, cwd=REPOSITORY, capture_output=True).returncode != 0
