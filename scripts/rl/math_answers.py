"""The verifier `math`, in a process of its own that can be ended.

math-verify (https://github.com/huggingface/Math-Verify) hands what a model wrote to sympy, and some expressions, such as
9^{9^{9^9}}, would keep it busy for ever. Its own time limits work in a main thread only, and rewards run in others.

Run by itself this file is that process: a JSON line [given, gold] in, true or false out.
"""

import atexit
import functools
import json
import re
import select
import subprocess
import sys
import threading

LONGEST = 500  # characters of an expression
SECONDS = 5.0  # for one verdict; what takes longer counts as wrong
DIGITS = 12  # decimals in which two values must agree
# Unknown words would be read as products of letters: "tea" would be "eat".
_WORD = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}")
_FUNCTIONS = {
    "sin",
    "cos",
    "tan",
    "cot",
    "sec",
    "csc",
    "log",
    "ln",
    "exp",
    "sqrt",
    "pi",
    "frac",
    "mod",
    "oo",
    "e",
}
_lock = threading.Lock()
_process: subprocess.Popen | None = None


@functools.lru_cache(maxsize=100_000)
def same_value(given: str, gold: str) -> bool:
    """Whether two answers are the same expression, set, interval or number."""
    if max(len(given), len(gold)) > LONGEST or _is_prose(given) or _is_prose(gold):
        return False
    with _lock:
        return _ask(given, gold)


def _is_prose(text: str) -> bool:
    """Whether a text holds words, nothing, or several answers to choose from."""
    several = text.count("$") > 2 or text.count("\\boxed") > 1
    return several or not text.strip() or any(word.lower() not in _FUNCTIONS for word in _WORD.findall(text))


def _ask(given: str, gold: str) -> bool:
    global _process
    if _process is None or _process.poll() is not None:
        _process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        atexit.register(_process.kill)
        _answer(_process, seconds=60.0)  # sympy is slow to load
    assert _process.stdin
    _process.stdin.write(json.dumps([given, gold]) + "\n")
    _process.stdin.flush()
    answer = _answer(_process, seconds=SECONDS)
    if answer is None:
        _process.kill()
        _process.wait()
        _process = None
    return answer == "true"


def _answer(process: subprocess.Popen, *, seconds: float) -> str | None:
    """The next line, or None if none comes in time.

    Raises:
        RuntimeError: the process ended, say because math-verify is not installed.
    """
    assert process.stdout
    if not select.select([process.stdout], [], [], seconds)[0]:
        return None
    line = process.stdout.readline().strip()
    if not line:
        raise RuntimeError(
            "The verifier `math` could not be started: is math-verify installed? (requirements.txt has it)"
        )
    return line


def _serve() -> None:
    import logging

    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)  # what cannot be read is no answer, and needs no traceback
    print("ready", flush=True)
    for line in sys.stdin:
        given, gold = (
            parse(text if "$" in text or "\\boxed" in text else f"${text}$") for text in json.loads(line)
        )
        same = bool(given and gold) and verify(gold, given, float_rounding=DIGITS)
        print(json.dumps(bool(same)), flush=True)


if __name__ == "__main__":
    _serve()
