"""Tools in verl's rollouts: a real run whose tool fails, hangs and says too much; and conversations in the evaluation."""

from functools import partial
from pathlib import Path

import pytest
from endpoint_fixtures import launch, log_lines, wait_end
from job.models import load_base
from launchers import RayCluster
from lesson.rollouts import read_rollouts, turns_of, with_calls
from rl.evaluation import evaluate
from rl.tasks import make_splits, write_splits
from sagemaker.core.training.configs import InputData, SourceCode
from tool_use import generate_with_tools
from tools import calculator, find_call
from workshop.jobs.outputs import fetch_output
from workshop.session.staging import stage_source

ROOT = Path(__file__).parents[1]
ENDPOINT_WITH_TORCH = True
BAD_TOOLS = '''
import itertools, time
from tools import guarded
from verl.tools.function_tool import function_tool

calls = itertools.count()

@function_tool
@guarded(seconds=0.5)
def calculator(expression: str) -> str:
    """Does everything that a tool should not do, in turn.

    Args:
        expression: anything
    """
    kind = next(calls) % 3
    if kind == 0:
        raise OSError("the line is dead")
    if kind == 1:
        time.sleep(3600)
    return "9" * 100_000
'''
OVERRIDES = [
    "actor_rollout_ref.rollout.multi_turn.function_tool_path=bad_tools.py",
    "actor_rollout_ref.rollout.temperature=1.5",  # some calls are damaged then
    "trainer.total_training_steps=2",
    "trainer.save_freq=2",
    "job.eval_problems=20",
    "job.eval_samples=1",
    "job.report_to=[mlflow]",
]


@pytest.mark.timeout(1200)  # the environment may have to be built first
def test_a_tool_that_fails_hangs_and_babbles_does_not_stop_the_run(endpoint, make_trainer, tmp_path):
    source = stage_source(ROOT / "05_grpo_verl" / "scripts", build=tmp_path)
    (source / "bad_tools.py").write_text(BAD_TOOLS)
    folders = write_splits(make_splits("long_sum", {"train": 64, "test": 20}), tmp_path / "data")
    trainer = make_trainer(
        "",
        source_code=SourceCode(
            source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
        ),
        distributed=RayCluster(process_count_per_node=1),
        hyperparameters={"config": "recipes/tools.yaml", "overrides": OVERRIDES},
    )
    channels = [InputData(channel_name=split, data_source=str(path)) for split, path in folders.items()]
    name = launch(trainer, input_data_config=channels)
    job = wait_end(name, timeout_s=1100)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), log_lines(name)[-40:])

    output = fetch_output(name, tmp_path / "output")
    rollouts = read_rollouts(output.data / "rollouts")
    assert len(rollouts) == 2 * 64
    results = [text for rollout in rollouts for role, text in turns_of(rollout) if role == "tool"]
    kinds = (
        "Error: the line is dead",
        "Error: calculator took longer than 0.5 seconds",
        "99...(truncated)...99",
    )
    for kind in kinds:
        assert any(kind in result for result in results), (kind, results)
    history = with_calls(output.history, rollouts)
    assert [row["step"] for row in history] == [1, 2]
    for row in history:
        assert 0 < row["calls"] < 1 and 2 < row["turns"] < 4
    answers = [item["completion"] for item in output.before.completions]
    assert any("\ntool\n" in answer for answer in answers), "the evaluation used no tool"


def test_a_conversation_reads_the_result_of_its_call():
    model, tokenizer = load_base("asset:tiny-tools")
    rows = make_splits("long_sum", {"train": 2000, "test": 40})["test"]
    limits = {"samples": 1, "max_new_tokens": 64, "batch_size": 40, "seed": 42}
    alone = evaluate(model, tokenizer, rows, **limits)
    speak = partial(generate_with_tools, tools=[calculator], max_turns=2, max_result_length=64)
    with_tool = evaluate(model, tokenizer, rows, **limits, generate=speak)
    called = [item for item in with_tool.completions if find_call(item["completion"])]
    assert len(called) >= 8
    assert sum(item["correct"] for item in called) >= 0.9 * len(called)
    for item in called:
        assert (
            f"</tool_call>\ntool\n{item['answer']}\nassistant\n" in item["completion"] or not item["correct"]
        )
    assert alone.sampled.value < 0.1 and not any(
        "\ntool\n" in item["completion"] for item in alone.completions
    )


def test_whatever_is_called_gets_an_answer_and_one_turn_carries_no_call_out():
    model, tokenizer = load_base("asset:tiny-tools")
    rows = make_splits("long_sum", {"train": 2000, "test": 40})["test"]
    limits = {"samples": 1, "max_new_tokens": 64, "batch_size": 40, "seed": 42}

    def calculator(expression: str) -> str:
        """Fails.

        Args:
            expression: anything
        """
        raise OSError("the line is dead, and it has been for days")

    two_turns = partial(generate_with_tools, tools=[calculator], max_turns=2, max_result_length=20)
    failed = evaluate(model, tokenizer, rows, **limits, generate=two_turns)
    results = [item["completion"] for item in failed.completions if find_call(item["completion"])]
    assert results and all("\ntool\nError: the...(truncated)...n for days\n" in text for text in results)
    single = evaluate(model, tokenizer, rows, **limits, generate=partial(two_turns, max_turns=1))
    assert not any("\ntool\n" in item["completion"] for item in single.completions)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ('<tool_call>{"name": "calculator", "arguments": {"expression": "1"}}</tool_call>', "calculator"),
        ('<tool_call>{"name": </tool_call><tool_call>{"name": "b", "arguments": {}}</tool_call>', "b"),
        ('<tool_call>["calculator"]</tool_call>', None),
        ('<tool_call>{"name": "calculator"}</tool_call>', None),
        ('<tool_call>{"name": "calculator", "arguments": {}}', None),
        ("<answer>7</answer>", None),
    ],
)
def test_calls_are_found(text, name):
    call = find_call(text)
    assert (call and call["name"]) == name
