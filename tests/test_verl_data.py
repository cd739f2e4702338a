"""Rows on their way into verl: their columns, how many a training needs, and prompts that verl would cut."""

import json

import pyarrow.parquet
import pytest
from job.models import load_tokenizer
from rl.tasks import DataError, make_splits
from verl_data import check_rows, data_columns, fitting_rows, write_data


@pytest.fixture(scope="module")
def rows() -> list[dict]:
    return make_splits("chain_sum", {"train": 20})["train"]


def settings(prompts: int = 8, steps: int = 5, **data) -> dict:
    return {"data": {"train_batch_size": prompts, **data}, "trainer": {"total_training_steps": steps}}


def test_columns_of_any_type_go_through_verls_file(rows, tmp_path):
    values = [7, "seven", None, [1, "two"], {"unit": "kg"}, 0.5, "\u2212 \u00e9", True]
    own = [{**row, "note": value} for row, value in zip(rows, values, strict=False)]
    files = write_data(own, own[:2], tmp_path)
    written = pyarrow.parquet.read_table(files["train_files"]).to_pylist()
    assert [json.loads(row["extra_info"]["columns"]) for row in written] == own
    assert written[0] == data_columns(own[0])
    assert len(pyarrow.parquet.read_table(files["val_files"])) == 2


@pytest.mark.parametrize(
    ("rows", "prompts", "steps", "times"),
    [(8, 8, 1, 1), (8, 8, 40, 40), (15, 8, 40, 40), (16, 8, 40, 20), (2000, 8, 60, 1), (2000, 8, 251, 2)],
)
def test_the_data_is_gone_through_often_enough(rows, prompts, steps, times):
    """verl ends after that many epochs, and an epoch has no step that is not full."""
    assert check_rows(settings(prompts, steps), rows) == times


@pytest.mark.parametrize(
    ("rows", "data", "words"),
    [
        (
            7,
            {},
            "A step takes data.train_batch_size = 8 prompts, and the channel 'train' has 7: give it 8 rows or more",
        ),
        (20, {"train_max_samples": 4}, "has 4 (data.train_max_samples lets no more than 4 in)"),
    ],
)
def test_rows_that_do_not_fill_a_step_are_refused(rows, data, words):
    with pytest.raises(DataError) as caught:
        check_rows(settings(**data), rows)
    assert words in str(caught.value)


def test_prompts_that_verl_would_cut_are_refused_by_row_and_length(rows):
    tokenizer = load_tokenizer("asset:tiny")
    longer = {**rows[0], "prompt": [{"role": "user", "content": "1 + " * 60 + "1 ="}], "index": 77}
    fits = settings(max_prompt_length=96)
    assert fitting_rows(tokenizer, rows, fits, use="training") == rows
    with pytest.raises(DataError) as caught:
        fitting_rows(tokenizer, [*rows, longer], fits, use="training")
    said = str(caught.value)
    assert "training: 1 of 21 prompts are longer than data.max_prompt_length = 96 tokens" in said
    assert "train row with index 77" in said
    needed = int(said.partition("Set data.max_prompt_length=")[2].split()[0])
    assert fitting_rows(tokenizer, [longer], settings(max_prompt_length=needed), use="training") == [longer]
    with pytest.raises(DataError):
        fitting_rows(tokenizer, [longer], settings(max_prompt_length=needed - 1), use="training")


def test_prompts_are_left_out_if_the_recipe_says_so(rows, capsys):
    longer = {**rows[0], "prompt": [{"role": "user", "content": "1 + " * 60 + "1 ="}]}
    drops = settings(max_prompt_length=96, filter_overlong_prompts=True)
    assert fitting_rows(load_tokenizer("asset:tiny"), [longer, *rows], drops, use="training") == rows
    assert capsys.readouterr().out.startswith("training: 1 of 21 prompts are longer than")
    fitting_rows(load_tokenizer("asset:tiny"), [longer, *rows], drops, use="verl's own validation")
    assert capsys.readouterr().out.startswith("verl's own validation: 1 of 21 prompts are longer than")


def test_tools_and_variables_of_the_template_are_part_of_the_prompt(rows):
    tokenizer = load_tokenizer("asset:tiny-tools")
    tokenizer.chat_template = "{% if tools %}{{ tools }}{% endif %}{{ extra }}{{ messages[0]['content'] }}"
    tool = {"type": "function", "function": {"name": "calculator", "description": "Works out a sum."}}
    plain = len(tokenizer(rows[0]["question"], add_special_tokens=False)["input_ids"])
    limit = settings(max_prompt_length=plain)
    assert fitting_rows(tokenizer, rows[:1], limit, use="training") == rows[:1]
    with pytest.raises(DataError):
        fitting_rows(tokenizer, rows[:1], limit, use="training", tools=[tool])
    with pytest.raises(DataError):
        more = settings(max_prompt_length=plain, apply_chat_template_kwargs={"extra": "1 + 1 + "})
        fitting_rows(tokenizer, rows[:1], more, use="training")
