"""Preference pairs of one's own, in every form that people have them."""

import json

import pytest
from own_data import ALL, BAD, GOOD, SAID, SYSTEM, USER, assistant, read_as_pairs
from rl.own_data import pairs_from
from rl.preferences import read_pairs
from rl.tasks import DataError, write_splits


@pytest.mark.parametrize(
    "pair",
    [
        {"prompt": "2 + 2", "chosen": "4", "rejected": "5"},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": [USER], "chosen": "4", "rejected": BAD},
        {"chosen": [USER, *GOOD], "rejected": [USER, *BAD]},
        {"prompt": "2 + 2", "chosen": [USER, *GOOD], "rejected": [USER, *BAD]},  # as UltraFeedback has it
        {"chosen": "\n\nHuman: 2 + 2\n\nAssistant: 4", "rejected": "\n\nHuman: 2 + 2\n\nAssistant: 5"},
        {"prompt": "\n\nHuman: 2 + 2\n\nAssistant:", "chosen": " 4", "rejected": "5"},
        {"prompt": "2 + 2 ", "chosen": "2 + 2 4", "rejected": "2 + 2\n5"},
        {"conversations": [{"from": "human", "value": "2 + 2"}], "chosen": GOOD[0], "rejected": BAD[0]},
        {"question": "2 + 2", "chosen_response": GOOD[0:], "rejected_response": json.dumps(BAD)},
    ],
)
def test_pairs_in_every_form(pair, tmp_path):
    (found,) = read_as_pairs([pair])
    assert found["prompt"] == [USER] and found["question"] == "2 + 2"
    assert (found["chosen"], found["rejected"], found["answer"]) == (GOOD, BAD, "4")
    folder = write_splits({"train": [found]}, tmp_path)["train"]
    assert read_pairs(folder) == read_pairs(folder / "train.parquet") == [found]


def test_a_common_beginning_of_several_turns_is_prompt():
    system = {"role": "system", "content": "Be brief."}
    sure = {"role": "user", "content": "Sure?"}
    (found,) = read_as_pairs(
        [
            {
                "chosen": [system, USER, SAID, sure, *assistant("Yes")],
                "rejected": [system, USER, SAID, sure, *assistant("No")],
            }
        ]
    )
    assert found["prompt"] == [system, USER, SAID, sure]
    assert (found["chosen"], found["rejected"]) == (assistant("Yes"), assistant("No"))
    (found,) = read_as_pairs([{"prompt": [system, USER], "chosen": [USER, *GOOD], "rejected": [USER, *BAD]}])
    assert found["prompt"] == [system, USER]


def test_words_in_common_are_prompt_only_if_asked_for():
    texts = {"user_text": "Which?", "chosen": "The sky is blue.", "rejected": "The sky is black."}
    with pytest.raises(DataError, match=r"row 1: no prompt; there are user_text, chosen.*prompt='\.\.\.'"):
        read_as_pairs([texts])
    (found,) = read_as_pairs([texts], prompt="common")
    assert found["prompt"] == [{"role": "user", "content": "The sky is"}]
    assert (found["chosen"], found["rejected"]) == (assistant("blue."), assistant("black."))
    (found,) = read_as_pairs([texts], prompt="user_text")
    assert found["question"] == "Which?" and found["chosen"] == assistant("The sky is blue.")
    with pytest.raises(DataError, match="row 1: no question before"):
        read_as_pairs([{"chosen": "yes", "rejected": "no"}], prompt="common")


def test_a_prompt_within_the_answers_is_asked_once():
    system = {"role": "system", "content": "Be brief."}
    spaced = {"role": "user", "content": "2 + 2 "}
    (found,) = read_as_pairs(
        [{"prompt": "2 + 2", "chosen": [system, spaced, *GOOD], "rejected": [system, spaced, *BAD]}]
    )
    assert found["prompt"] == [system, spaced]
    # An answer that is the prompt and nothing more repeats nothing, and "2 + 2" does not begin "2 + 22".
    for echo in ("2 + 2", "2 + 22"):
        (found,) = read_as_pairs([{"prompt": "2 + 2", "chosen": "2 + 2 4", "rejected": echo}])
        assert (found["chosen"], found["rejected"]) == (assistant("2 + 2 4"), assistant(echo))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"prompt": "2 + 2", "chosen": "4", "rejected": "4"}, "'chosen' and 'rejected' are the same"),
        ({"prompt": "2 + 2", "chosen": "4", "rejected": " "}, "no answer in 'rejected'"),
        ({"prompt": "2 + 2", "chosen": None, "rejected": "4"}, "no answer in 'chosen'"),
        ({"prompt": "", "chosen": "4", "rejected": "5"}, "column 'prompt': it is empty"),
        ({"chosen": [USER, *GOOD], "rejected": [USER]}, "the same as far as the shorter goes"),
        (
            {"chosen": [USER, *GOOD], "rejected": [{"role": "user", "content": "?"}, *BAD]},
            "end both sides with message 1, where",
        ),
        (
            {
                "chosen": "Human: 2 + 2\n\nAssistant: 4\n\nHuman: Sure?\n\nAssistant: Yes",
                "rejected": "Human: 2 + 2\n\nAssistant: 5\n\nHuman: Sure?\n\nAssistant: Yes",
            },
            "go on after the message at which they part.*with message 2",
        ),
        ({"prompt": "2 + 2", "chosen": [SYSTEM, *GOOD], "rejected": [SYSTEM, *BAD]}, "which is asked"),
        ({"chosen": GOOD, "rejected": BAD}, "no question before the answer"),
        ({"chosen": "yes", "rejected": "no"}, "no prompt.*prompt='...'"),
    ],
)
def test_bad_pairs_are_named_or_left_out(pair, message):
    good = {
        "chosen": [{"role": "user", "content": "1 + 1"}, *GOOD],
        "rejected": "Human: 1 + 1\n\nAssistant: 5",
    }
    if "prompt" in pair:
        good["prompt"] = "1 + 1"
    with pytest.raises(DataError, match=f"(?s)row 2.*{message}"):
        read_as_pairs([good, pair])
    splits, report = pairs_from([good, pair], splits=ALL, skip_bad=True)
    assert len(splits["train"]) == 1 and [drop.count for drop in report.dropped] == [1]


@pytest.mark.parametrize("early", ["Human: Hi\n\nAssistant: No\n\nHuman: Bye\n\nAssistant: Bye", "Hi"])
def test_what_is_read_as_a_pair_can_be_read_by_a_job(early, tmp_path):
    """One rule says what a pair is: a job takes all that was written, as it was written."""
    texts = [f"Human: {number}?\n\nAssistant: Yes\n\nHuman: Sure?\n\nAssistant: " for number in range(9)]
    rows = [{"chosen": f"{text}Yes", "rejected": f"{text}No"} for text in texts]
    rows.append({"chosen": f"{texts[0]}Yes", "rejected": early})
    splits, report = pairs_from(rows, splits=ALL, skip_bad=True)
    assert read_pairs(write_splits(splits, tmp_path)["train"]) == splits["train"]
    assert (len(splits["train"]), [drop.count for drop in report.dropped]) == (9, [1])


def test_pairs_of_one_question_stay_together_and_duplicates_go():
    pairs = [
        {"prompt": f"{number} + 1", "chosen": f"good {answer}", "rejected": f"bad {answer}"}
        for number in range(20)
        for answer in range(3)
    ]
    splits, report = pairs_from(
        [*pairs, {**pairs[0], "chosen": "GOOD  0"}], splits={"train": 0.8, "validation": 0.2}
    )
    assert {name: len(part) for name, part in splits.items()} == {"train": 48, "validation": 12}
    train, validation = ({row["question"] for row in part} for part in splits.values())
    assert not train & validation
    assert [(drop.reason, drop.count) for drop in report.dropped] == [("came before", 1)]
    assert report.verifier is None and "verifier" not in str(report)


def test_pairs_keep_tools_scores_and_the_known_answer():
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    row = {
        "prompt": "2 + 2",
        "chosen": "4",
        "rejected": "5",
        "tools": [tool],
        "score_chosen": 9.5,
        "gold": "So\n#### 4",
    }
    (found,) = read_as_pairs([row], answer="gold")
    assert json.loads(found["tools"]) == [tool]
    assert (found["score_chosen"], found["answer"]) == (9.5, "4")


@pytest.mark.parametrize(("chosen", "noted"), [("2+2=4", True), ("4", False)])
def test_a_prompt_that_is_taken_off_is_noted(chosen, noted):
    _, report = pairs_from([{"prompt": "2+2", "chosen": chosen, "rejected": "2+2=5"}], splits=ALL)
    assert ("in 1 pairs both answers repeat the prompt, which is taken off" in str(report)) is noted
