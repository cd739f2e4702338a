"""How verdicts come about: no text takes long, any thread may ask, and the process of `math` never stays behind."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
from job_variables import SHARED, job_variables
from rl import math_answers
from rl.verifiers import VERIFIERS, math

NASTY = [
    "9", "1,", "1 ", ",", " ", "\n", "$", "**", "*", "_", "`", "(", "{", "\\frac{", "\\boxed{", "-", "\u200b", "a", "a ", "\"",
    "\u0301\u0323", ".", "\ufdfa", "\u0130", "B) ", "\0", "\ud800", "1e", "9^", "9^{", "\\", "\\,", "%", "\u20ac",
]  # fmt: skip


@pytest.mark.parametrize("unit", NASTY, ids=ascii)
@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_no_text_takes_long(name, unit):
    verifier, long = VERIFIERS[name], unit * (100_000 // len(unit))
    started = time.process_time()
    for given in (long, f"{long}9", f"9{long}", f"$${long}$$"):
        for gold in ("9", "B) Paris", "$18"):
            assert not verifier(given, gold) or unit in " \n\u200b"  # which nobody sees
    assert time.process_time() - started < 5  # most take 0.1 s; what is quadratic takes minutes


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_from_several_threads_at_once(name):
    pairs = [(f"\\sqrt{{{i}}}" if name == "math" else f"{i}", i) for i in range(1, 40)]

    def verdicts(_):
        return [VERIFIERS[name](given, f"\\sqrt{{{i}}}" if name == "math" else str(i)) for given, i in pairs]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(found) for found in pool.map(verdicts, range(8), timeout=120))


def test_what_never_ends_is_ended_and_the_next_verdict_is_right():
    assert math("\\frac{2}{4}", "\\frac12")  # the process runs
    with ThreadPoolExecutor(1) as pool:  # where no signal could end it
        started = time.monotonic()
        assert pool.submit(math, "9^{9^{9^9}}", "x+1").result(timeout=120) is False
        assert pool.submit(math, "\\frac{3}{6}", "\\frac12").result(timeout=120) is True
    assert time.monotonic() - started < 60
    assert math("x+1", "1+x")


def test_a_process_that_was_killed_costs_no_verdict():
    assert math("x+2", "2+x")
    psutil.Process(math_answers._process.pid).kill()
    assert math("x+3", "3+x")
    os.kill(math_answers._process.pid, 19)  # SIGSTOP: it dies while it is asked
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(math, "x+4", "4+x")
        time.sleep(0.3)
        psutil.Process(math_answers._process.pid).kill()
        assert verdict.result(timeout=120) is True


ORPHAN = """
import os, sys, threading, time
from rl import math_answers
from rl.verifiers import math
assert math("x+1", "1+x")
print(math_answers._process.pid, flush=True)
if sys.argv[1] == "busy":
    threading.Thread(target=math, args=("9^{9^{9^9}}", "x"), daemon=True).start()
    time.sleep(0.5)
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["ends", "busy"])
def test_no_process_is_left_behind(how):
    result = subprocess.run(
        [sys.executable, "-c", ORPHAN, how],
        capture_output=True,
        text=True,
        env=job_variables(SHARED),
        timeout=120,
        check=True,
    )
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(result.stdout)) and _runs(int(result.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_forked_process_has_a_process_of_its_own():
    code = (
        "import os\nfrom rl.verifiers import math\nassert math('x+1', '1+x')\nchild = os.fork()\n"
        "right = math('x+2', '2+x') and not math('x+3', '2+x')\n"
        "if not child: os._exit(0 if right else 1)\n"
        "assert right and os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], env=job_variables(SHARED), timeout=120, check=True)


def test_without_math_verify_the_reason_is_said():
    code = (
        "import sys\nfrom rl.verifiers import math\nsys.executable = sys.argv[1]\n"
        "assert math('1', '1.0')\nmath('x', 'y')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "/bin/true"],
        env=job_variables(SHARED),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "is math-verify installed?" in result.stderr


def test_verifiers_need_no_torch():
    code = (
        "import sys, rl.verifiers, rl.answers, rl.templates; assert not {'torch', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=job_variables(SHARED), timeout=60, check=True)
