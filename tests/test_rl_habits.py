"""Habits are told apart by hand-written completions, false steps by true arithmetic, and by the base model's own text."""

import random

import pytest
from build_tiny_model import running_sums
from rl.habits import DIRECT, HABITS, THINKS, UNFORMATTED, false_step_share, false_steps, habit, habits, steps
from scored import scored


def thought(*lines: str, answer: int = 9) -> str:
    return f"<think>{chr(10).join(lines)}</think><answer>{answer}</answer>"


def evaluation(greedy: list[str], sampled: list[list[str]], opening: str = ""):
    """Problem i has the answer 9, one greedy completion and its samples."""
    tries = [(index, "greedy", 0, text) for index, text in enumerate(greedy)]
    tries += [
        (index, "sampled", sample, text)
        for index, texts in enumerate(sampled)
        for sample, text in enumerate(texts)
    ]
    return scored(tries, opening=opening)


SENTENCE = "The answer is 9."


@pytest.mark.parametrize(
    ("text", "opening", "expected"),
    [
        (thought("2 + 7 = 9"), "", THINKS),
        (thought("well"), "", THINKS),
        (thought(), "", DIRECT),
        (thought(" ", ""), "", DIRECT),
        (SENTENCE, "", UNFORMATTED),
        ("<answer>9</answer>", "", UNFORMATTED),
        ("<think>2 + 7 = 9", "", UNFORMATTED),  # cut off
        (thought("2 + 7 = 9") + "!", "", UNFORMATTED),
        ("2 + 7 = 9</think><answer>9</answer>", "<think>\n", THINKS),
        ("</think><answer>9</answer>", "<think>\n", DIRECT),
        ("<answer>9</answer>", "<think>\n\n</think>\n\n", DIRECT),
        (thought("2 + 7 = 9"), "<think>\n\n</think>\n\n", THINKS),
        (thought("I close with </think> then", "2 + 7 = 9"), "", THINKS),
    ],
)
def test_the_habit_of_a_completion(text, opening, expected):
    (item, _) = evaluation([text], [[text]], opening).completions
    assert habit(item) == expected


def test_habits_are_counted_and_how_often_each_is_right():
    found = habits(
        evaluation(
            [thought(), SENTENCE],
            [
                [thought("2 + 7 = 9"), thought("2 + 7 = 8", answer=8), thought(), SENTENCE],
                [thought("2 + 7 = 9"), thought("2 + 7 = 9"), thought(answer=8), thought(answer=8)],
            ],
        )
    )
    assert [list(found), *map(tuple, found.values())] == [["sampled", "greedy"], HABITS, HABITS]
    sampled, greedy = found["sampled"], found["greedy"]
    assert (sampled[THINKS].count, sampled[THINKS].share, sampled[THINKS].right) == (4, 0.5, 0.75)
    assert (sampled[DIRECT].count, sampled[DIRECT].share) == (3, 0.375)
    assert sampled[DIRECT].right == pytest.approx(1 / 3)
    assert (sampled[UNFORMATTED].count, sampled[UNFORMATTED].right) == (1, 0.0)
    assert (greedy[THINKS].count, greedy[THINKS].share, greedy[THINKS].right) == (0, 0.0, None)
    for parts in found.values():
        assert sum(part.share for part in parts.values()) == 1


def test_steps_are_the_lines_that_are_sums():
    text = thought(
        "First I add.", "3 + 4 = 7", "  7 - 9 = -2", "3 * 4 = 11", "7 + 1 = 2 3", "so 1 + 1 = 3", ""
    )
    assert steps(text) == ["3 + 4 = 7", "7 - 9 = -2"]
    assert steps("1 + 1 = 3") == []  # not in the thinking
    assert steps("<think>\n1 + 1 = 2\n</think>\n\n<think>2 + 2 = 4</think>") == ["1 + 1 = 2", "2 + 2 = 4"]


@pytest.mark.parametrize(
    ("step", "right"),
    [
        ("3 + 4 = 7", True),
        ("3 + 4 = 8", False),
        ("-3 - 4 = -7", True),
        ("-3 - 4 = 1", False),
        ("-1 - 0 = 1", False),
        ("3 - -4 = 7", True),
        ("3 + -4 = -1", True),
        ("617 - 254 + 414=777", True),
        ("617 - 254 + 414 = 778", False),
        ("007 + 1 = 8", True),
    ],
)
def test_a_false_step(step, right):
    assert steps(thought(step)) == [step]
    assert false_steps(thought("1 + 1 = 2", step)) == ([] if right else [step])


def test_the_steps_that_the_base_was_pretrained_on_are_all_seen_and_true():
    rng = random.Random(3)
    for _ in range(200):
        terms = [str(rng.randint(0, 9)) for _ in range(rng.randint(4, 6))]
        lines, totals = running_sums(terms[0] + "".join(f" {rng.choice('+-')} {term}" for term in terms[1:]))
        assert steps(thought(*lines)) == lines and false_steps(thought(*lines)) == []
        at = rng.randrange(len(lines))
        wrong = lines[at].rpartition("=")[0] + f"= {totals[at + 1] + rng.choice([-2, -1, 1, 2, 10])}"
        assert false_steps(thought(*lines[:at], wrong, *lines[at + 1 :])) == [wrong]


def test_numbers_without_end_do_no_harm():
    long = "9" * 5000  # more than int() reads
    for text in (f"{long} + 1 = {long}", "1 + " * 5000 + "1", "1" + " " * 20_000 + "+ 1 = 3"):
        assert false_steps(thought(text)) == []


def test_the_share_of_thinking_with_a_false_step():
    wrong, direct, words = thought("2 + 7 = 8", "8 + 1 = 9"), thought(), thought("It is clear.")
    found = evaluation([direct], [[wrong, thought("2 + 7 = 9"), words, direct, SENTENCE]])
    assert false_step_share(found, "sampled") == 0.5
    assert false_step_share(evaluation([direct], [[thought("2 + 7 = 9")]]), "sampled") == 0.0


def test_where_no_step_was_found_none_is_false_or_true():
    found = evaluation([SENTENCE], [[thought("It is clear."), thought()]])
    assert false_step_share(found, "sampled") is None
    assert false_step_share(found, "greedy") is None
