"""Evaluations of completions that a test writes by hand."""

from collections.abc import Iterable

from rl.evaluation import Evaluation, score_completions
from rl.verifiers import number


def scored(tries: Iterable[tuple[int, str, int, str]], question: str = "?", opening: str = "") -> Evaluation:
    """Of (problem, decoding, sample, completion); every problem has the answer 9, `question` may name its {index}."""
    return score_completions(
        [
            {
                "index": index,
                "question": question.format(index=index),
                "answer": "9",
                "decoding": decoding,
                "sample": sample,
                "completion": text,
                "tokens": 9,
                "cut_off": False,
            }
            for index, decoding, sample, text in tries
        ],
        number,
        opening,
    )
