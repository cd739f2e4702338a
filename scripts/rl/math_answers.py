"""The verifier `math`, in a process of its own that can be ended.

math-verify (https://github.com/huggingface/Math-Verify) hands what a model wrote to sympy, and some expressions, such as
9^{9^{9^9}}, would keep it busy for ever. Its own time limits work in a main thread only, and rewards run in others.

Run by itself this file is that process: a JSON line [given, gold] in, true or false out.
"""

import atexit
import functools
import json
import os
import re
import select
import signal
import subprocess
import sys
import threading

LONGEST = 500  # characters of an expression
# Of a processor, for one verdict; what takes longer counts as wrong, on a busy machine no sooner.
SECONDS = 2.0
MEMORY = 4 << 30  # bytes
START_SECONDS = 300.0  # sympy is slow to load
DIGITS = 12  # decimals in which two values must agree
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FUNCTIONS = frozenset("sin cos tan cot sec csc log ln exp sqrt pi frac mod".split())
_lock = threading.Lock()
_process: subprocess.Popen | None = None


@functools.lru_cache(maxsize=10_000)
def same_value(given: str, gold: str) -> bool:
    """Whether two answers are the same expression, set, interval or number. May be called from any thread.

    Raises:
        RuntimeError: math-verify cannot be started.
    """
    if not _is_one_answer(given) or not _is_one_answer(gold) or _words(given) != _words(gold):
        return False
    with _lock:
        answer = _ask(given, gold)
        # A process that was ended by something else, such as a lack of memory, is started once more.
        return (_ask(given, gold) if answer is None else answer) is True


def _is_one_answer(text: str) -> bool:
    """Whether a text may be an expression, and does not hold several to choose from."""
    # [0, 1) is closed too. What is not takes seconds to parse.
    closed = sum(map(text.count, "([{")) == sum(map(text.count, ")]}"))
    return 0 < len(text.strip()) <= LONGEST and closed and text.count("$") <= 2 and text.count("\\boxed") <= 1


def _words(text: str) -> list[str]:
    """math-verify reads words as products of letters, so that "tea" would be "eat"; they must be the same."""
    return sorted(word for word in _WORD.findall(text) if word not in _FUNCTIONS)


def _ask(given: str, gold: str) -> bool | None:
    """The verdict; False if it takes too long, None if the process ended before it had one."""
    process = _running()
    assert process.stdin
    try:
        process.stdin.write(json.dumps([given, gold]) + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        return None
    line = _line(process, seconds=20 * SECONDS)
    if line in ("true", "false"):
        return line == "true"
    _end(process)
    return None if line == "" and process.returncode != -signal.SIGPROF else False


def _running() -> subprocess.Popen:
    global _process
    if _process is None or _process.poll() is not None:
        _process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        if _line(_process, seconds=START_SECONDS) != "ready":
            _end(_process)
            raise RuntimeError(
                "The verifier `math` could not be started: is math-verify installed? (requirements.txt has it)"
            )
    return _process


def _line(process: subprocess.Popen, *, seconds: float) -> str | None:
    """The next line; None if none comes in time, empty if the process has ended."""
    assert process.stdout
    poll = select.poll()
    poll.register(process.stdout, select.POLLIN)
    return process.stdout.readline().strip() if poll.poll(seconds * 1000) else None


def _end(process: subprocess.Popen) -> None:
    """Ends it, unless it has ended, in which case it is only waited for."""
    try:
        process.wait(0.5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_at_exit() -> None:
    if _process is not None:
        _process.kill()
        _process.wait()


def _forget() -> None:
    """In a forked process: the pipes, and a lock that may be held, belong to the other one."""
    global _process, _lock
    _process, _lock = None, threading.Lock()


def _serve() -> None:
    import logging
    import resource

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # what cannot be read is no answer, and needs no traceback
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks
    # Should that one be gone, a verdict that takes for ever ends too: the system ends this process.
    signal.signal(signal.SIGPROF, signal.SIG_DFL)
    if sys.platform == "linux":  # macOS has no such limit
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no verdict
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
        try:
            given, gold = (parse(_marked(text), parsing_timeout=0) for text in json.loads(line))
            same = bool(given and gold) and verify(gold, given, float_rounding=DIGITS, timeout_seconds=0)
        except (RecursionError, MemoryError):
            same = False
        signal.setitimer(signal.ITIMER_PROF, 0)
        print(json.dumps(bool(same)), file=answers, flush=True)


def _marked(text: str) -> str:
    return text if "$" in text or "\\boxed" in text else f"${text}$"


if __name__ == "__main__":
    # This folder's files have names that libraries may have too.
    sys.path[:] = [path for path in sys.path if path != os.path.dirname(os.path.abspath(__file__))]
    _serve()
else:
    atexit.register(_end_at_exit)
    os.register_at_fork(after_in_child=_forget)
