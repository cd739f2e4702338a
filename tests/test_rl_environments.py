"""Environments: what a till does with whatever a model scans, and that the task asks what it can tell."""

import pytest
from rl.environments import DEAREST, FEWEST_ITEMS, MOST_ITEMS, Till, price
from rl.tasks import make_splits
from transformers.utils import get_json_schema

QUESTION = "Till 17: what do 417, 902, 335 cost together?"


@pytest.fixture
def till() -> Till:
    till = Till()
    till.reset(QUESTION, answer="never looked at")
    return till


def test_a_till_adds_up_and_says_what_is_left(till):
    first, second, third = (price(17, item) for item in ("902", "417", "335"))
    assert till.scan("902") == f"{first}, left 417, 335"
    assert till.scan("417") == f"{first + second}, left 335"
    assert till.scan("335") == f"{first + second + third}, left nothing"


@pytest.mark.parametrize("item", ["418", "", "417, 902", " 417", "4", "x" * 1000, 417, None, ["417"]])
def test_what_is_not_left_is_refused_and_costs_nothing(till, item):
    shown = till.scan(item)
    assert shown.startswith("Error: ") and shown.endswith("is not among them, left 417, 902, 335")
    assert len(shown) < 80
    assert till.scan("417") == f"{price(17, '417')}, left 902, 335"


def test_an_item_is_scanned_once(till):
    till.scan("417")
    assert till.scan("417") == "Error: 417 is not among them, left 902, 335"
    assert till.scan("902") == f"{price(17, '417') + price(17, '902')}, left 335"


def test_an_episode_begins_anew(till):
    till.scan("417")
    till.reset("Till 101: what do 200, 300 cost together?")
    assert till.scan("300") == f"{price(101, '300')}, left 200"


def test_tills_do_not_share_a_state(till):
    other = Till()
    other.reset(QUESTION)
    till.scan("417")
    assert other.scan("417") == f"{price(17, '417')}, left 902, 335"


@pytest.mark.parametrize(
    "question",
    [
        "2 + 3 =",
        "Till 17: what do  cost together?",
        "Till x: what do 200, 300 cost together?",
        QUESTION + " ",
    ],
)
def test_a_question_for_no_till_is_refused(question):
    with pytest.raises(ValueError, match="not for a till.*It has the form"):
        Till().reset(question)


def test_prices_stay_what_they_are():
    """A row's answer is written down when the data is made, and asked for when it is trained on, perhaps elsewhere."""
    known = [price(17, str(item)) for item in range(100, 1000)]
    assert known[:8] == [1, 4, 4, 8, 3, 9, 8, 8]
    assert set(known) == set(range(1, DEAREST + 1))


def test_whoever_scans_everything_has_the_answer():
    splits = make_splits("till", {"train": 300, "test": 50})
    assert not {row["question"] for row in splits["train"]} & {row["question"] for row in splits["test"]}
    for row in splits["train"] + splits["test"]:
        till = Till()
        till.reset(**row)
        items = row["question"].removesuffix(" cost together?").partition("what do ")[2].split(", ")
        assert FEWEST_ITEMS <= len(set(items)) == len(items) <= MOST_ITEMS
        assert (
            int(row["question"].removeprefix("Till ").partition(":")[0]) % 2 == 1
        )  # the base has seen the others
        shown = [till.scan(item) for item in items][-1]
        assert shown == f"{row['answer']}, left nothing"


def test_a_model_sees_the_schema_of_its_method():
    schema = get_json_schema(Till().scan)["function"]
    assert schema["name"] == "scan" and list(schema["parameters"]["properties"]) == ["item"]
    assert schema["parameters"]["required"] == ["item"]
