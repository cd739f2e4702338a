"""04's step_timing.py: a step is timed as often as the budget allows, once at least."""

import runpy
import time

from harness import ROOT

time_steps = runpy.run_path(str(ROOT / "04_grpo_unsloth" / "scripts" / "step_timing.py"))["time_steps"]


def test_the_first_step_counts_only_where_there_is_time_for_no_other():
    pauses = iter([1.0, 0.01, 0.01])
    seconds, timed = time_steps(lambda: time.sleep(next(pauses)), within_s=30.0)
    assert timed == 2 and seconds < 0.5
    assert next(pauses, None) is None

    pauses = iter([1.0, 0.01, 0.01])
    seconds, timed = time_steps(lambda: time.sleep(next(pauses)), within_s=0.1)
    assert timed == 0 and seconds >= 1
