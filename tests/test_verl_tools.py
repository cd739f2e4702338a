"""Tools in verl's rollouts: a real run whose tool fails, hangs and says too much; and conversations in the evaluation."""

import asyncio
import json
from functools import partial

import pytest
from endpoint_fixtures import launch, log_lines, wait_end
from harness import ROOT, answer_of
from job.models import load_base
from launchers import RayCluster
from lesson.rollouts import read_rollouts, turns_of, with_calls
from rl.evaluation import evaluate
from rl.tasks import make_splits, write_splits
from rl.verifiers import number
from sagemaker.core.training.configs import InputData, SourceCode
from tiny import tiny_tokenizer
from tool_use import Tool, Turns, generate_with_tools
from tools import calculator, find_call, find_calls, guarded
from transformers.utils import get_json_schema
from workshop.jobs.outputs import fetch_output
from workshop.session.staging import stage_source

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
    "job.report_to=[]",
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


LIMITS = {"verifier": number, "samples": 1, "max_new_tokens": 64, "batch_size": 40, "seed": 42}


@pytest.fixture(scope="module")
def rows():
    return make_splits("long_sum", {"train": 2000, "test": 40})["test"]


def speaking(function, **rules):
    tool = Tool(get_json_schema(function), function)
    return partial(generate_with_tools, turns=Turns([tool], **{"most": 2, "result_length": 64, **rules}))


def test_a_conversation_reads_the_result_of_its_call(rows):
    model, tokenizer = load_base("asset:tiny-tools")
    alone = evaluate(model, tokenizer, rows, **LIMITS)
    speak = speaking(calculator)
    with_tool = evaluate(model, tokenizer, rows, **LIMITS, generate=speak)
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


def test_whatever_is_called_gets_an_answer_and_one_turn_carries_no_call_out(rows):
    model, tokenizer = load_base("asset:tiny-tools")

    async def calculator(expression: str) -> str:
        """Fails.

        Args:
            expression: anything
        """
        raise OSError("the line is dead, and it has been for days")

    failed = evaluate(model, tokenizer, rows, **LIMITS, generate=speaking(calculator, result_length=20))
    results = [item["completion"] for item in failed.completions if find_call(item["completion"])]
    assert results and all("\ntool\nError exec...(truncated)...n for days\n" in text for text in results)
    single = evaluate(model, tokenizer, rows, **LIMITS, generate=speaking(calculator, most=1))
    assert not any("\ntool\n" in item["completion"] for item in single.completions)


def test_several_calls_of_one_turn_are_answered_as_far_as_the_recipe_allows(rows):
    model, tokenizer = load_base("asset:tiny-tools")
    asked = []

    @guarded()
    def calculator(expression: str) -> str:
        """Takes notes.

        Args:
            expression: anything
        """
        asked.append(expression)
        return f"no. {expression}"

    def three(text: str) -> list:
        return [{"name": "calculator", "arguments": {"expression": str(n)}} for n in range(3)]

    speak = speaking(calculator, most_calls=2, find_calls=three)
    limits = {"max_new_tokens": 8, "temperature": 0.0, "seed": 1}
    (answer,) = speak(model, tokenizer, [rows[0]["prompt"]], **limits)
    assert asked == ["0", "1"]
    assert "\ntool\nno. 0\ntool\nno. 1\nassistant\n" in answer.text and "no. 2" not in answer.text
    assert answer.tokens == 16 and answer.cut_off


def test_all_turns_of_a_tool_have_one_event_loop(rows):
    model, tokenizer = load_base("asset:tiny-tools")
    loops = []

    @guarded()
    async def calculator(expression: str) -> str:
        """Takes notes.

        Args:
            expression: anything
        """
        loops.append(asyncio.get_running_loop())
        return "1"

    call = {"name": "calculator", "arguments": {"expression": "1"}}
    speak = speaking(calculator, most=3, find_calls=lambda text: [call])
    speak(model, tokenizer, [rows[0]["prompt"]], max_new_tokens=2, temperature=0.0, seed=1)
    assert len(loops) == 2 and loops[0] is loops[1]


@pytest.mark.parametrize(
    ("side", "short"),
    [("left", "(truncated)...lo"), ("right", "he...(truncated)"), ("middle", "h...(truncated)...o")],
)
def test_results_are_shortened_as_the_recipe_says(rows, side, short):
    model, tokenizer = load_base("asset:tiny-tools")

    @guarded()
    def calculator(expression: str) -> str:
        """Greets.

        Args:
            expression: anything
        """
        return "hello"

    call = {"name": "calculator", "arguments": {"expression": "1"}}
    speak = speaking(calculator, result_length=2, shorten=side, find_calls=lambda text: [call])
    (answer,) = speak(model, tokenizer, [rows[0]["prompt"]], max_new_tokens=2, temperature=0.0, seed=1)
    assert f"\ntool\n{short}\nassistant\n" in answer.text


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


CALLS = [
    *[f'<tool_call>{call}</tool_call>' for call in (
        '{"name": "calculator", "arguments": {"expression": "1 + 1"}}', '{"name": "b", "arguments": [1]}',
        '{"name": "calculator"}', '["calculator"]', '{"name": 3, "arguments": {}}', "{",
    )],
    '<tool_call>{"name": "a", "arguments": {}}</tool_call>, then <tool_call>{"name": "b", "arguments": {"n": 1}}</tool_call>',
    '<tool_call>{"name": "a", "arguments": {}}', "<answer>7</answer>", "",
    "<tool_call><function=calculator><parameter=expression>1 + 1</parameter></function></tool_call>",
    "<tool_call>\n<function=calculator>\n<parameter=expression>\n2 * 3\n</parameter>\n</function>\n</tool_call>" * 2,
    "<tool_call><function=calculator><parameter=times>3</parameter></function></tool_call>",
]  # fmt: skip
FOUND_BY_VERL = """
import asyncio, json, sys
from transformers import AutoTokenizer
from verl.experimental.agent_loop.tool_parser import ToolParser
from verl.tools.schemas import OpenAIFunctionToolSchema
from tool_use import Tool
from verl_config import call_finder
texts, schema, folder = json.loads(sys.argv[1])
tokenizer = AutoTokenizer.from_pretrained(folder)
answer = {}
for form in ("hermes", "qwen3_coder"):
    parser = ToolParser.get_tool_parser(form, tokenizer)
    find = call_finder(form, [Tool(schema, None)])
    answer[form] = []
    for text in texts:
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
        _, calls = asyncio.run(parser.extract_tool_calls(ids, [OpenAIFunctionToolSchema.model_validate(schema)]))
        verls = [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls]
        answer[form].append([verls, find(text)])
print("ANSWER " + json.dumps(answer))
"""


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_the_evaluation_finds_the_calls_that_verl_finds(tmp_path):
    tiny_tokenizer().save_pretrained(tmp_path)  # of all letters
    found = answer_of(
        FOUND_BY_VERL,
        json.dumps([CALLS, get_json_schema(calculator), str(tmp_path)]),
        scripts=ROOT / "05_grpo_verl" / "scripts",
        VERL_PLATFORM="cpu",
        VERL_USE_EXTERNAL_MODULES="verl_cpu",
        VERL_ENGINE_DEVICE="cuda",
    )
    for form, pairs in found.items():
        for text, (verls, ours) in zip(CALLS, pairs, strict=True):
            assert ours == verls, (form, text)
    assert [len(find_calls(text)) for text in CALLS] == [len(verls) for verls, _ in found["hermes"]]
    assert [len(ours) for _, ours in found["qwen3_coder"][-3:]] == [1, 2, 1]
