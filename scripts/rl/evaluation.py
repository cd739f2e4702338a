"""pass@1 on held-out problems: the one measurement that every module ends with.

`evaluate` generates and scores, on as many processes as the job has. What it returns can be saved, loaded and looked
at without torch. Completions that something else generated (verl, vLLM) are scored by `score_completions` alone.
"""

import dataclasses
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, TypedDict

from rl.answers import extract_answer, is_formatted
from rl.rewards import is_right
from rl.statistics import Estimate, bootstrap_share, pass_at_k, wilson_interval
from rl.tasks import DataError, Row, write_whole
from rl.templates import opening
from rl.verifiers import VERIFIERS, Verifier, usable

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from rl.generation import Generated

GREEDY, SAMPLED = "greedy", "sampled"
# generate(model, tokenizer, prompts, *, max_new_tokens, temperature, seed, chat_template_kwargs)
Generate = Callable[..., "list[Generated]"]


class Completion(TypedDict):
    """One completion of an evaluation. `score_completions` adds the last three fields."""

    index: int
    question: str
    answer: str
    decoding: str  # greedy or sampled
    sample: int  # 0 for greedy, else 0..k-1
    completion: str
    tokens: int  # length, the end token included
    cut_off: bool  # it reached the limit and had not ended
    extracted: NotRequired[str | None]
    correct: NotRequired[bool]
    formatted: NotRequired[bool]


@dataclasses.dataclass(frozen=True)
class PassAtOne(Estimate):
    """Share of problems answered right at the first try, with its 95 % interval over `n` problems: Wilson's where
    decoding is greedy (a problem is right or wrong), the bootstrap's where it is sampled (a share of its samples is)."""

    decoding: str

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] ({self.decoding}, n = {self.n})"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What a model does on a set of problems.

    Attributes:
        greedy: pass@1 of the most likely completion, with its Wilson interval.
        sampled: pass@1 at temperature 1: the mean over all samples of a problem, then over problems. Its interval is
            the bootstrap's over problems (rl.statistics.bootstrap_share).
        format_rate: by decoding, the share of completions in the format asked for.
        mean_completion_length: by decoding, in tokens, the end token included.
        cut_off: by decoding, the share of completions that reached the limit and had not ended; they answer nothing.
            Empty in files of an earlier version, which did not count them.
        completions: all completions, each with what was judged of it.
        seconds: how long `evaluate` took.
        of: model, problems and decoding, in texts to compare, of a base model's (job.base_evaluation); else empty.
    """

    greedy: PassAtOne
    sampled: PassAtOne
    format_rate: dict[str, float]
    mean_completion_length: dict[str, float]
    completions: list[Completion]
    cut_off: dict[str, float] = dataclasses.field(default_factory=dict)
    seconds: float = dataclasses.field(default=0.0, compare=False)
    of: dict[str, str] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def samples(self) -> int:
        """Sampled completions of each problem."""
        return len({item["sample"] for item in self.completions if item["decoding"] == SAMPLED})

    def pass_at(self, k: int) -> Estimate:
        """Share of problems that `k` samples solve at least once (rl.statistics.pass_at_k), with bootstrap interval.

        Raises:
            ValueError: k below 1 or above the samples of a problem.
        """
        groups = verdicts(self.completions, SAMPLED).values()
        return bootstrap_share([pass_at_k(len(group), sum(group), k) for group in groups])

    def save(self, path: Path | str) -> None:
        """Writes everything as JSON, the completions included; all of the file or nothing."""
        write_whole(Path(path), json.dumps(dataclasses.asdict(self), ensure_ascii=False, indent=1).encode())

    @classmethod
    def load(cls, path: Path | str) -> "Evaluation":
        """Reads what `save` wrote.

        Raises:
            DataError: no such file, or not an evaluation.
        """
        try:
            content = json.loads(Path(path).read_text(encoding="utf-8"))
            greedy, _ = (PassAtOne(**content.pop(name)) for name in (GREEDY, SAMPLED))
            # Counted again: in files of an earlier version its interval is another one, and too wide.
            return cls(greedy, _sampled_pass_at_one(content["completions"]), **content)
        except FileNotFoundError as error:
            raise DataError(f"There is no evaluation {path}.") from error
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DataError(f"{path} is not an evaluation written by Evaluation.save ({error!r}).") from error


def score_completions(items: list[Completion], verifier: Verifier, opening: str = "") -> Evaluation:
    """Judges completions, wherever they come from.

    Args:
        items: every problem must have one greedy completion and the same number of samples.
        verifier: says whether an answer is right (rl.verifiers).
        opening: what the chat template has put before each completion (rl.templates).

    Raises:
        ValueError: a problem lacks a completion, or has one twice.
    """
    completions: list[Completion] = []
    for item in items:
        extracted = extract_answer(item["completion"], opening)
        correct = is_right(item["completion"], item["answer"], verifier, opening)
        formatted = is_formatted(item["completion"], opening)
        completions.append({**item, "extracted": extracted, "correct": correct, "formatted": formatted})
    groups = {name: [item for item in completions if item["decoding"] == name] for name in (GREEDY, SAMPLED)}
    problems = {item["index"] for item in completions}
    for name, group in groups.items():
        samples = {item["sample"] for item in group}
        tries = {(item["index"], item["sample"]) for item in group}
        if not group or len(tries) != len(group) or len(tries) != len(problems) * len(samples):
            raise ValueError(
                f"{len(problems)} problems need {len(samples) or 1} {name} completion(s) each; "
                f"got {len(group)}, {len(group) - len(tries)} of them repeated."
            )
    return Evaluation(
        greedy=_greedy_pass_at_one([item["correct"] for item in groups[GREEDY]]),
        sampled=_sampled_pass_at_one(groups[SAMPLED]),
        format_rate={name: _mean(group, "formatted") for name, group in groups.items()},
        mean_completion_length={name: _mean(group, "tokens") for name, group in groups.items()},
        cut_off={name: _mean(group, "cut_off") for name, group in groups.items()},
        completions=completions,
    )


def verdicts(completions: list[Completion], decoding: str) -> dict[tuple[int, str], list[bool]]:
    """Whether each completion of a problem (index, question) is right; the problems and their samples in order."""
    groups: dict[tuple[int, str], list[bool]] = {}
    for item in sorted(completions, key=lambda item: (item["index"], item["sample"])):
        if item["decoding"] == decoding:
            groups.setdefault((item["index"], item["question"]), []).append(item["correct"])
    return groups


def _greedy_pass_at_one(right: list[bool]) -> PassAtOne:
    count, n = sum(right), len(right)
    return PassAtOne(count / n, *wilson_interval(count, n), n=n, decoding=GREEDY)


def _sampled_pass_at_one(completions: list[Completion]) -> PassAtOne:
    shares = [sum(group) / len(group) for group in verdicts(completions, SAMPLED).values()]
    return PassAtOne(**dataclasses.asdict(bootstrap_share(shares)), decoding=SAMPLED)


def _mean(group: list[Any], field: str) -> float:
    return sum(item[field] for item in group) / len(group)


def evaluate(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[Row],
    *,
    verifier: Verifier,
    samples: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    temperature: float = 1.0,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    generate: Generate | None = None,
    prefill: str = "",
) -> Evaluation:
    """Generates one greedy completion and `samples` sampled ones for each row, and scores them.

    `verifier` and `chat_template_kwargs` are those of the training: what is measured is what is trained. `generate` makes
    the completions of a batch; without it `rl.generation.generate` does. 04 passes one that asks vLLM, 05 one that calls tools.
    `prefill` is what every completion begins with, such as "<think>" to see what thinking is worth to this model; one's own
    `generate` gets it only where there is one (see rl.generation).

    In a distributed job every process must call this; each generates its share of the batches and all return the same
    result. Each batch has a random seed of its own, so the result does not depend on the number of processes. Neither
    the model's mode nor the random state of the training around it is changed.

    Raises:
        ValueError: no rows, or samples below 1.
        DataError: two rows have one index; or no known answer is one that the verifier, one of rl.verifiers, could ever take.
    """
    if not rows or samples < 1:
        raise ValueError(
            f"an evaluation needs rows and at least one sample; got {len(rows)} rows, {samples} samples"
        )
    check_indices(rows)
    known = next((name for name, function in VERIFIERS.items() if function is verifier), None)
    if known and not any(usable(verifier, row["answer"]) for row in rows):
        raise DataError(
            f"None of {len(rows)} known answers, such as {rows[0]['answer'][:60]!r}, can be reached with the verifier "
            f"{known}: whatever a model says counts as wrong. Mend the answers, or choose another verifier."
        )
    started = time.perf_counter()
    items = _complete(
        model,
        tokenizer,
        rows,
        samples,
        max_new_tokens,
        batch_size,
        seed=seed,
        temperature=temperature,
        chat_template_kwargs=chat_template_kwargs,
        generate=generate,
        prefill=prefill,
    )
    scored = score_completions(items, verifier, opening(tokenizer, chat_template_kwargs))
    return dataclasses.replace(scored, seconds=time.perf_counter() - started)


def check_indices(rows: Sequence[Row]) -> None:
    """Raises DataError if two rows have one index: an evaluation knows a problem's completions by it."""
    seen: dict[int, Row] = {}
    for row in rows:
        if (first := seen.setdefault(row["index"], row)) is not row:
            raise DataError(
                f"Two of {len(rows):,} problems have the index {row['index']}: {first['question'][:60]!r} ({first['task']}) and "
                f"{row['question'][:60]!r} ({row['task']}). Number them anew: "
                "rows = [{**row, 'index': n} for n, row in enumerate(rows)]."
            )


def greedy_pass_at_1(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[Row],
    *,
    verifier: Verifier,
    max_new_tokens: int,
    batch_size: int,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> PassAtOne:
    """The greedy half of `evaluate` alone, for a look in the middle of training. Every process must call this.

    Raises:
        ValueError: no rows.
    """
    if not rows:
        raise ValueError("an evaluation needs rows; got none")
    items = _complete(
        model,
        tokenizer,
        rows,
        0,
        max_new_tokens,
        batch_size,
        seed=0,
        temperature=1.0,
        chat_template_kwargs=chat_template_kwargs,
    )
    opened = opening(tokenizer, chat_template_kwargs)
    right = [is_right(item["completion"], item["answer"], verifier, opened) for item in items]
    return _greedy_pass_at_one(right)


def _complete(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[Row],
    samples: int,
    max_new_tokens: int,
    batch_size: int,
    *,
    seed: int,
    temperature: float,
    chat_template_kwargs: Mapping[str, Any] | None,
    generate: Generate | None = None,
    prefill: str = "",
) -> list[Completion]:
    """One greedy completion and `samples` sampled ones for each row, as `score_completions` takes them."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from rl import generation

    generate = generate or generation.generate
    begun: dict[str, Any] = {"prefill": prefill} if prefill else {}
    batches = [rows[start : start + batch_size] for start in range(0, len(rows), batch_size)]
    tries = [(GREEDY, 0), *((SAMPLED, sample) for sample in range(samples))]
    work = [(decoding, sample, batch) for decoding, sample in tries for batch in batches]

    state = PartialState()
    done: list[tuple[int, list[Completion]]] = []
    with generation.undisturbed(model) as bare_model:
        for number, (decoding, sample, batch) in enumerate(work):
            if number % state.num_processes != state.process_index:
                continue
            outputs = generate(
                bare_model,
                tokenizer,
                [row["prompt"] for row in batch],
                max_new_tokens=max_new_tokens,
                temperature=temperature if decoding == SAMPLED else 0.0,
                seed=seed + number,
                chat_template_kwargs=chat_template_kwargs,
                **begun,
            )
            items: list[Completion] = [
                {
                    "index": row["index"],
                    "question": row["question"],
                    "answer": row["answer"],
                    "decoding": decoding,
                    "sample": sample,
                    "completion": output.text,
                    "tokens": output.tokens,
                    "cut_off": output.cut_off,
                }
                for row, output in zip(batch, outputs, strict=True)
            ]
            done.append((number, items))
    gathered = sorted(gather_object(done), key=lambda numbered: numbered[0])
    return [item for _, items in gathered for item in items]
