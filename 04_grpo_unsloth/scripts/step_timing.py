"""Seconds of a training step, within a budget of time: a CPU without bfloat16 takes a minute for each."""

import statistics
import time
from collections.abc import Callable

STEPS = 2  # timed, after one that is not
WITHIN_S = 30.0  # no step begins after so many seconds


def time_steps(
    step: Callable[[], None], *, steps: int = STEPS, within_s: float = WITHIN_S
) -> tuple[float, int]:
    """Median seconds of `step`, and of how many.

    The first one finds memory and chooses kernels. It counts only where there is time for no other: of 0 steps, then.
    """
    times: list[float] = []
    while len(times) < 1 + steps and sum(times) < within_s:
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:] or times), len(times) - 1
