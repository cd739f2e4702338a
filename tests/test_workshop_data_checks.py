"""Preflight of the data: every row; answers that can be reached; enough rows for one step."""

import dataclasses
import itertools
import re

import pytest
from accelerate.data_loader import BatchSamplerShard
from data_requests import found, job, written_problems
from rl.own_data import pairs_from
from rl.tasks import make_splits, write_splits
from torch.utils.data import BatchSampler, SequentialSampler
from trl.trainer.utils import RepeatSampler
from workshop.checks.data_checks import (
    check_answers,
    check_data,
    check_enough,
    check_whole_step,
    rows_of_a_step,
)
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING


def with_answers(*answers: str) -> list[dict]:
    rows = make_splits("chain_sum", {"train": len(answers)})["train"]
    return [{**row, "answer": answer} for row, answer in zip(rows, answers, strict=True)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return written_problems(tmp_path_factory.mktemp("data"))


def test_data_on_this_machine(folders):
    assert found(folders) == [
        ("data: train", OK, "12 rows, task chain_sum"),
        ("data: test", OK, "4 rows, task chain_sum"),
    ]


def test_an_index_of_two_problems_is_said_where_they_are_evaluated(tmp_path):
    rows = make_splits("chain_sum", {"train": 12})["train"]
    again = [{**row, "index": row["index"] % 8} for row in rows]

    def statuses(channel, **settings):
        folder = tmp_path / channel
        if not folder.exists():
            write_splits({channel: again}, tmp_path)
        checks = found({channel: str(folder)}, {"generation_batch_size": 8, "num_generations": 8, **settings})
        return [status for _, status, detail in checks if "have the index 0" in detail]

    assert statuses("test") == [PROBLEM]
    assert statuses("test", eval_problems=8) == []
    assert statuses("problems") == [WARNING]  # pairs_sampled.py takes them in portions
    assert statuses("train") == []


def test_a_channel_of_own_code_need_hold_no_rows(folders, tmp_path, monkeypatch):
    """Of the channels that the script reads itself a damaged row is a problem as ever, and so is an empty folder."""
    table = tmp_path / "table"
    table.mkdir()

    def status(name: str) -> tuple[str, str]:
        return found({**folders, name: str(table)})[-1][1:]

    assert status("table")[0] == PROBLEM
    (table / "capitals.csv").write_text("country,capital\nPeru,Lima\n")
    assert status("table") == (
        NOTE,
        "no rows of problems, and the script does not read them: left to code of your own",
    )
    assert status("validation")[0] == status("problems")[0] == PROBLEM
    (tmp_path / "train.py").write_text("from job.container import channel\nrows = channel('table')\n")
    request = dataclasses.replace(job({"table": str(table)}), source_dir=tmp_path)
    assert [check.status for check in check_data(request, {})] == [PROBLEM]
    monkeypatch.setattr("workshop.checks.data_checks.MOST_BYTES", 10)
    assert status("table") == (NOTE, "0 MB that the script does not read: left to code of your own")


def test_channels_with_models_are_not_read(folders):
    settings = {"base_model": "channel:model", "reward_model": "channel:judge"}
    channels = {**folders, "model": "/no/model", "judge": "s3://no/judge"}
    assert [name for name, _, _ in found(channels, settings)] == ["data: train", "data: test"]


def test_the_base_of_an_adapter_in_a_channel_of_its_own_is_no_data(folders, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    assert ("data: below", OK, "a model") in found({**folders, "below": str(tmp_path)})


def test_files_that_are_no_rows_are_refused_with_the_way_forward(tmp_path, folders):
    (tmp_path / "train.csv").write_text("question,answer\n1 + 1,2\n")
    ((_, status, detail), *_) = found({"train": f"file://{tmp_path}/train.csv", "test": folders["test"]})
    assert status == PROBLEM and f"rl.own_data.rows_from('{tmp_path}/train.csv')" in detail


def test_the_same_question_in_another_spelling_is_the_same(tmp_path):
    first, second = (with_answers("1", "2"), with_answers("1"))
    for rows, text in ((first, "What is IT?"), (second, "what  is\nit?")):
        rows[0]["question"] = text
    folders = {**write_splits({"train": first}, tmp_path), **write_splits({"test": second}, tmp_path)}
    (*_, (name, status, detail)) = found({name: str(path) for name, path in folders.items()})
    assert (name, status) == ("data", PROBLEM)
    assert "1 questions are in both 'train' and 'test', such as 'what is it?'" in detail


@pytest.mark.parametrize(
    ("systems", "questions", "shared"),
    [
        (["A cat.", "A dog.", "A fox."], ["What is it?"] * 3, 0),
        (["A cat.", "A dog.", "A  CAT."], ["What is it?"] * 3, 1),
        (["Be brief.", "Be brief.", "Think."], ["1 + 1", "1 + 2", "1 + 1"], 1),
    ],
    ids=["texts of their own", "the same text", "one prompt for a channel"],
)
def test_a_system_message_of_its_own_is_a_part_of_the_question(tmp_path, systems, questions, shared):
    rows = with_answers("1", "2", "3")
    for row, system, question in zip(rows, systems, questions, strict=True):
        row["question"] = question
        row["prompt"] = [{"role": "system", "content": system}, {"role": "user", "content": question}]
    folders = write_splits({"train": rows[:2], "test": rows[2:]}, tmp_path)
    said = [detail for name, _, detail in found({key: str(path) for key, path in folders.items()})]
    assert sum("questions are in both 'train' and 'test'" in detail for detail in said) == shared
    assert not any("several times" in detail for detail in said)


@pytest.mark.parametrize(
    ("answers", "verifier", "said"),
    [
        (
            ["18 apples", "3", "2 pears"],
            "number",
            "2 of 3 answers.*'18 apples'.*verifier: text would take all",
        ),
        (["(B)", "C", "(A)"], "number", r"3 of 3 answers.*verifier: choice would take all"),
        (
            ["So 4 + 5 = 9.\n#### 9", "1"],
            "number",
            "1 of 2 answers.*rl.own_data.rows_from takes the answer from behind",
        ),
        (
            ["First we add both numbers, and then we take the half of what comes out.", "1"],
            "number",
            "put the answer alone",
        ),
        ([r"\frac{x}{2}", "3"], "number", "verifier: math would take all"),
        (["B", "Paris"], "choice", "1 of 2 answers.*'Paris'.*verifier: text would take all"),
        (["1,234", "3"], "choice", "verifier: number would take all"),
    ],
)
def test_answers_that_cannot_be_reached(answers, verifier, said):
    (check,) = check_answers("train", with_answers(*answers), verifier)
    assert check.status in (WARNING, PROBLEM) and check.name == "data: train"
    assert re.search(said, check.detail), check.detail


@pytest.mark.parametrize(
    ("answers", "verifier"),
    [
        (["18 apples", "3"], "text"),
        (["(B)", "C"], "choice"),
        (["1,234", "-5.", "1/2", "$18"], "number"),
        (["18 apples"], "my_task.same"),  # tried in a process that has the file
        (["18 apples"], "nubmer"),  # which another check refuses
        (["18 apples"], ["number"]),
    ],
)
def test_answers_that_can_be_reached_or_are_checked_elsewhere(answers, verifier):
    assert list(check_answers("train", with_answers(*answers), verifier)) == []


def test_at_most_three_examples_and_the_recipes_verifier(tmp_path):
    rows = with_answers(*(f"{number} apples" for number in range(9)))
    channels = {name: str(path) for name, path in write_splits({"train": rows}, tmp_path).items()}
    (_, (name, status, detail)) = found(channels)
    assert (name, status) == ("data: train", PROBLEM)  # not one of them can be reached
    assert (
        detail.count("apples'") == 3
        and "9 of 9 answers cannot be reached with the verifier 'number'" in detail
    )
    assert len(found(channels, {"verifier": "text"})) == 1


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize(
    "recipe",
    [
        {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 2, "num_generations": 4},
        {"per_device_train_batch_size": 8, "steps_per_generation": 1, "num_generations": 2},
        {"generation_batch_size": "32", "num_generations": 4, "per_device_train_batch_size": 4},
    ],
)
def test_grpo_is_refused_exactly_where_its_sampler_gives_nothing(recipe, processes):
    from trl import GRPOConfig

    numbers = {key: int(value) for key, value in recipe.items()}
    trained = GRPOConfig(output_dir="unused", bf16=False, use_cpu=True, report_to="none", **numbers)
    if "generation_batch_size" not in numbers:  # the config knows no other processes here
        trained.generation_batch_size *= processes
    needed, why = rows_of_a_step(job({}, processes=processes), recipe)
    assert needed > 1
    for rows in range(1, 2 * needed):
        sampler = RepeatSampler(
            range(rows), trained.num_generations, trained.generation_batch_size // trained.num_generations
        )
        refused = list(check_enough(rows, needed, why))
        assert bool(refused) == (len(list(sampler)) == 0)
    assert "completions" in why


@pytest.mark.parametrize(("processes", "drop"), list(itertools.product([1, 2, 3], [True, False])))
def test_dpo_is_refused_exactly_where_its_loader_gives_nothing(processes, drop):
    recipe = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 8,
        "dataloader_drop_last": drop,
    }
    needed, why = rows_of_a_step(job({}, "trl.DPOConfig", processes=processes), recipe)
    for rows in range(1, 30):
        batches = BatchSampler(SequentialSampler(range(rows)), 4, drop)
        shards = [BatchSamplerShard(batches, processes, number) for number in range(processes)]
        nothing = not any(len(list(shard)) for shard in (shards if processes > 1 else [batches]))
        assert bool(list(check_enough(rows, needed, why))) == nothing


def test_fewer_pairs_than_a_step_takes_are_a_warning():
    recipe = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    request = job({}, "trl.DPOConfig", processes=2)
    (warning,) = check_whole_step(15, request, recipe)
    assert warning.status == WARNING and "15 pairs, and a step is to take 16" in warning.detail
    assert list(check_whole_step(16, request, recipe)) == []


def test_too_few_rows_are_said_once_and_for_the_training_alone(folders):
    recipe = {"per_device_train_batch_size": 16, "gradient_accumulation_steps": 8, "num_generations": 8}
    short = [item for item in found(folders, recipe) if item[1] == PROBLEM]
    ((name, _, detail),) = short
    assert name == "data: train"
    assert "12 rows, and one step takes 16 (128 completions, 8 of each prompt)" in detail
    assert not [item for item in found(folders, {**recipe, "num_generations": 16}) if item[1] == PROBLEM]
    assert not [item for item in found(folders, recipe, config="trl.RewardConfig") if item[1] == PROBLEM]
    assert not [item for item in found(folders, {**recipe, "num_generations": "many"}) if item[1] == PROBLEM]


def test_pairs_are_read_as_pairs_and_their_answers_need_no_verifier(tmp_path, folders):
    pairs = [{"prompt": f"{number}?", "chosen": "Yes, it is.", "rejected": "no"} for number in range(6)]
    splits, _ = pairs_from(pairs, splits={"train": 4, "validation": 2})
    channels = {name: str(path) for name, path in write_splits(splits, tmp_path).items()}
    recipe = {"per_device_train_batch_size": 8, "dataloader_drop_last": "true"}
    assert found({**channels, "test": folders["test"]}, recipe, config="trl.DPOConfig") == [
        ("data: train", OK, "4 rows, task own"),
        (
            "data: train",
            PROBLEM,
            "4 rows, and one step takes 8 (8 on each of 1 process, with dataloader_drop_last): the trainer would do no "
            "step and call that completed. Give it more rows, or make the batch smaller",
        ),
        ("data: validation", OK, "2 rows, task own"),
        ("data: test", OK, "4 rows, task chain_sum"),
    ]
    ((_, status, detail),) = found({"train": folders["train"]}, {}, config="trl.DPOConfig")
    assert status == PROBLEM and "'chosen' is missing" in detail
