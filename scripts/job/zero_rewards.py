"""Says in the log that there is nothing to learn from, while it can still be mended: a reward that is 0 throughout."""

from collections.abc import Iterator, Mapping
from typing import Any

from rl.evaluation import Evaluation
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import print_line

FIRST_STEPS = 5  # after so many it is said, and again whenever the number of steps has doubled
EXAMPLE_LENGTH = 300  # characters of a completion
ADVICE = {
    "accuracy": "Do the known answers suit the verifier, and does the model put its answer into <answer>...</answer>?",
    "format": "Does the prompt ask for <think>...</think><answer>...</answer>, and is max_completion_length enough?",
    "soft_overlong": "Every completion is as long as max_completion_length allows: raise it.",
}
OTHER_ADVICE = "Call it with completions of your own, and look at the columns that it is given."


class ZeroRewards:
    """Follows the metrics of the steps (TRL's names, means over all processes) and says what has taught nothing."""

    def __init__(self, before: Evaluation | None = None) -> None:
        """`before`, the evaluation of the base model, gives an example of what it answers."""
        self._before = before
        self._silent: set[str] | None = None  # rewards that were 0 in every step so far
        self._all_equal = True  # in every group, in every step so far
        self._next = FIRST_STEPS

    def add(self, metrics: Mapping[str, Any]) -> None:
        """Takes note of one log of the trainer; what has no reward in it is passed over."""
        means = {
            name: metrics[name] for name in metrics if name.startswith("rewards/") and name.endswith("/mean")
        }
        if not means:
            return
        zero = {
            name.removeprefix("rewards/").removesuffix("/mean")
            for name, mean in means.items()
            if mean == 0.0 and not metrics.get(name.removesuffix("mean") + "std", 0.0) > 0.0
        }
        self._silent = zero if self._silent is None else self._silent & zero
        self._all_equal &= metrics.get("frac_reward_zero_std") == 1.0

    def warnings(self, step: int) -> Iterator[str]:
        """Lines for the log, if it is time for them."""
        if self._silent is None or step < self._next:
            return
        self._next = 2 * step
        for name in sorted(self._silent):
            yield (
                f"[warning] The reward {name} was 0 for every completion of the first {step} steps: it has taught "
                f"nothing. {ADVICE.get(name, OTHER_ADVICE)}"
            )
        if self._all_equal:
            yield (
                f"[warning] All completions of a group had the same reward in each of the first {step} steps, so that "
                "nothing was learned: GRPO compares the completions of a group. Easier or harder problems, a reward "
                "with more than two values, a higher temperature or more generations make them differ."
            )
        if self._before and (self._silent or self._all_equal):
            yield f"[warning] {_example(self._before)}"


class ZeroRewardWarnings(TrainerCallback):
    """`ZeroRewards` for a Trainer. It never stops the job."""

    def __init__(self, before: Evaluation | None = None) -> None:
        self._rewards = ZeroRewards(before)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        for logs in state.log_history:  # of a job that goes on
            self._rewards.add(logs)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        self._rewards.add(logs)
        if state.is_world_process_zero:
            for line in self._rewards.warnings(state.global_step):
                print_line(line)


def _example(before: Evaluation) -> str:
    """What the base model answered to a test problem, in one line."""
    item = before.completions[0]
    text = item["completion"]
    shown = repr(text if len(text) <= EXAMPLE_LENGTH else "... " + text[-EXAMPLE_LENGTH:])
    read, verdict = item.get("extracted"), "right" if item.get("correct") else "wrong"
    found = "no answer was found in it" if read is None else f"its answer {read!r} is {verdict}"
    return f"An example, of the base model: to a problem with the known answer {item['answer']!r} it wrote {shown}; {found}."
