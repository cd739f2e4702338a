"""The recipes of 05_grpo_verl: each is accepted by our checks and by verl itself, a broken twin of each is refused.

verl lives in the job's environment, so its part runs there, in one process for all recipes.
"""

import json
import math
import re

import boto3
import pytest
from harness import ROOT, answer_of
from job.arguments import RecipeError
from launchers import RayCluster
from lesson.verl_checks import check_verl_recipe
from rl.rewards import TOKEN_ESTIMATE, compute_score
from rl.tasks import make_splits, write_splits
from sagemaker.core.training.configs import InputData, SourceCode
from verl_keys import DEFAULTS, value_of
from verl_recipe import check_source, read_verl_recipe, recipe_problems, score_arguments
from workshop.checks.preflight import PreflightError, preflight
from workshop.session.staging import stage_source

MODULE = ROOT / "05_grpo_verl" / "scripts"
RECIPES = MODULE / "recipes"
# recipe -> the (hosts, GPUs on each) that it is meant for
FITS = {
    "tiny": [(1, 2), (2, 1)],
    "smoke": [(1, 2), (2, 1)],
    "smoke_gpu": [(1, 1)],
    "tools": [(1, 2), (2, 1)],
    "small": [(1, 1)],
    "full": [(1, 8), (2, 8)],
    "ulysses": [(1, 8), (2, 8)],
    "megatron": [(2, 8)],
    "lora": [(1, 8), (2, 8)],
}
ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
# recipe, hosts, GPUs, what is broken, words of the sentence that refuses it
BROKEN = [
    ("tiny", 1, 2, f"{ROLLOUT}.name=vllm", "which is for GPUs, but job.device is cpu"),
    ("tiny", 1, 2, f"{ROLLOUT}.n=1", "compared with others to the same prompt"),
    ("tiny", 1, 2, "data.train_batch_size=6", "not a multiple of ppo_mini_batch_size 8"),
    (
        "tiny",
        1,
        2,
        f"{ACTOR}.ppo_micro_batch_size_per_gpu=24",
        "not a multiple of ppo_micro_batch_size_per_gpu 24",
    ),
    ("tiny", 1, 3, "data.seed=1", "cannot be dealt evenly to 3 copies"),
    (
        "tiny",
        1,
        2,
        f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=24",
        "not a multiple of rollout.log_prob_micro_batch_size_per_gpu 24",
    ),
    ("tiny", 1, 2, f"{ACTOR}.strategy=fsdp3", "write fsdp2"),
    ("tiny", 1, 2, f"{ACTOR}.strategy=fsdp", "must be fsdp2 on a CPU"),
    ("tiny", 1, 2, f"{ROLLOUT}.tensor_model_parallel_size=2", "holds a whole model in each process"),
    ("tiny", 1, 2, "algorithm.adv_estimator=grop", "did you mean 'grpo'?"),
    ("tiny", 1, 2, "model_engine=megatrn", "did you mean 'megatron'?"),
    ("tiny", 1, 2, "model_engine=megatron", "runs on GPUs only"),
    (
        "tools",
        1,
        2,
        f"{ROLLOUT}.agent.default_agent_loop=single_turn_agent",
        "rolls out single turns without a word",
    ),
    ("tools", 1, 2, f"{ROLLOUT}.multi_turn.function_tool_path=null", "a file that registers tools"),
    ("tools", 1, 2, f"{ROLLOUT}.multi_turn.max_assistant_turns=1", "never read its result"),
    ("tiny", 1, 2, f"{ROLLOUT}.agent.default_agent_loop=tool_agent", "calls tools that are not meant"),
    (
        "tiny",
        1,
        2,
        f"{ROLLOUT}.agent.default_agent_loop=my_loop",
        "knows verl's single_turn_agent and tool_agent",
    ),
    ("tools", 1, 2, f"{ROLLOUT}.multi_turn.format=gemma4", "in the formats hermes and qwen3_coder"),
    ("smoke", 1, 2, f"{ROLLOUT}.name=vllm", "which is for GPUs, but job.device is cpu"),
    ("smoke_gpu", 1, 1, f"{ACTOR}.ppo_max_token_len_per_gpu=512", "raise it, or shorten"),
    ("small", 1, 1, "custom_reward_function.path=my_rewards.py", "verl's old name"),
    ("small", 1, 1, "actor_rollout_ref.model.lora_rank=1024", "rank 512 at most"),
    ("small", 1, 1, f"{ROLLOUT}.name=vlm", "name is 'vlm'"),
    ("full", 1, 8, f"{ROLLOUT}.tensor_model_parallel_size=3", "choose a divisor of 8"),
    ("full", 1, 8, f"{ACTOR}.ppo_max_token_len_per_gpu=1024", "raise it, or shorten"),
    ("full", 2, 8, f"{ACTOR}.ppo_mini_batch_size=24", "A step takes data.train_batch_size prompts"),
    ("ulysses", 1, 8, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=3", "not whole groups of 3"),
    ("ulysses", 1, 8, "actor_rollout_ref.model.use_remove_padding=false", "use_remove_padding must be true"),
    (
        "megatron",
        2,
        8,
        f"{ACTOR}.megatron.tensor_model_parallel_size=3",
        "do not hold a whole number of copies",
    ),
    ("megatron", 2, 8, f"{ACTOR}.megatron.tensor_model_parallel_size=16", "reaches over several hosts"),
    ("megatron", 1, 8, "data.seed=1", "8 GPUs do not hold a whole number of copies"),
    ("lora", 1, 8, f"{ROLLOUT}.tensor_model_parallel_size=16", "choose a divisor of 8"),
]
# Values that no check can reckon with, or that the job would replace: refused alone, before all else
USELESS = [
    (f"{ACTOR}.ppo_mini_batch_size=0", "ppo_mini_batch_size is 0: write a whole number, 1 or more"),
    (f"{ROLLOUT}.tensor_model_parallel_size=0", "tensor_model_parallel_size is 0"),
    (f"{ROLLOUT}.tensor_model_parallel_size=null", "tensor_model_parallel_size is None"),
    ("data.train_batch_size=eight", "train_batch_size is 'eight': write a whole number"),
    (f"{ROLLOUT}.n=true", "rollout.n is True"),
    (f"{ROLLOUT}.gpu_memory_utilization=90%", "gpu_memory_utilization is '90%': write a share"),
    (f"{ACTOR}.fsdp_config.model_dtype=fp8", "model_dtype is 'fp8': write one of fp32"),
    (f"{ROLLOUT}.multi_turn=true", "multi_turn is True, but it is a section"),
    ("actor_rollout_ref=3", "actor_rollout_ref is 3, but it is a section"),
    ("trainer.total_training_steps=null", "total_training_steps is missing: how many steps to train"),
    ("trainer.save_freq=-1", "save_freq is -1"),
    ("trainer.save_freq=null", "the trained model is made from the last checkpoint"),
    ("actor_rollout_ref.model.path=Qwen/Qwen3-4B", "would be lost. Its place is job.base_model"),
    ("reward.custom_reward_function.path=my_rewards.py", "Its place is job.rewards"),
    ("trainer.nnodes=4", "Its place is the job's instance_count"),
    (
        "trainer.total_epochs=1",
        "Its place is trainer.total_training_steps: the data is gone through as often",
    ),
    ("trainer.v1.trainer_mode=separate_async", "trainer_mode is 'separate_async': write sync"),
    ("data.truncation=left", "data.truncation is 'left': write error"),
    ("data.seed=null", "data.seed is missing"),
    ("data.train_max_samples=all", "train_max_samples is 'all': write a whole number"),
    ("data.apply_chat_template_kwargs=thinking", "write names and values, such as {enable_thinking: false}"),
    ("actor_rollout_ref.model.custom_chat_template=x", "in training and not in the evaluation"),
    (f"{ROLLOUT}.prompt_length=64", "Its place is data.max_prompt_length"),
    (f"{ROLLOUT}.multi_turn.tool_config_path=tools.yaml", "functions instead of classes"),
    (f"{ROLLOUT}.multi_turn.max_parallel_calls=0", "max_parallel_calls is 0"),
]
# What only verl can know, in the order of the answers.
REFUSED_BY_VERL = [
    ("tiny", 1, 2, "data.train_bach_size=8", "train_bach_size"),
    ("megatron", 2, 8, f"{ACTOR}.megatron.tensor_model_paralel_size=8", "tensor_model_paralel_size"),
]
COMPOSE = """
import json, sys
from job.arguments import RecipeError
from verl_recipe import read_verl_recipe
from verl_config import trainer_config
answers = []
for name, hosts, gpus, override in json.loads(sys.argv[1]):
    job, settings = read_verl_recipe(f"recipes/{name}.yaml", [override] if override else [])
    try:
        config = trainer_config(job, settings, hosts=hosts, gpus_per_host=gpus)
        shape = f"{config.trainer.nnodes}x{config.trainer.n_gpus_per_node}"
        answers.append(f"ok {config.actor_rollout_ref.actor.strategy} {shape}")
    except RecipeError as error:
        answers.append(str(error))
print("ANSWER " + json.dumps(answers))
"""
DEFAULTS_OF_VERL = """
import json
from hydra import compose, initialize_config_module
from omegaconf import OmegaConf
from verl_keys import DEFAULTS
answer = {}
for engine in ("dp", "megatron"):
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[f"model_engine={engine}"])
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True), flags={"allow_objects": True})
    answer[engine] = {
        key: OmegaConf.to_container(value) if OmegaConf.is_config(value) else value
        for key in DEFAULTS
        for value in [OmegaConf.select(config, key)]
    }
print("ANSWER " + json.dumps(answer))
"""
SCORES = """
import json, sys
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl_data import data_columns
from verl_recipe import read_verl_recipe
from verl_config import trainer_config
overrides, cases = json.loads(sys.argv[1])
job, settings = read_verl_recipe("recipes/full.yaml", overrides)
config = trainer_config(job, settings, hosts=1, gpus_per_host=8, opening="<think>")
score = get_custom_reward_fn(config)
print("ANSWER " + json.dumps([
    score(data_source="", solution_str=text, ground_truth=row["answer"], extra_info=data_columns(row)["extra_info"])
    for text, row in cases
]))
"""
OWN = """
import os
os.environ["LOADS"] = str(int(os.environ.get("LOADS", "0")) + 1)

def same_word(given, gold):
    return given.casefold() == gold

def brevity(completions, allowed, **kwargs):
    assert os.environ["LOADS"] == "1", "loaded twice"
    texts = [completion[0]["content"] for completion in completions]
    return [None if most is None else float(len(text) <= int(most)) for text, most in zip(texts, allowed)]

async def later(prompts, completions, **kwargs):
    import numpy
    return [numpy.float32(len(prompt) == 1 and completion[0]["role"] == "assistant") for prompt, completion in zip(prompts, completions)]
"""
# As in a job without GPUs: verl looks for its platform when it is imported.
ON_CPU = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "verl_cpu", "HF_HUB_OFFLINE": "1"}


@pytest.mark.parametrize(
    ("name", "hosts", "gpus"), [(name, *fit) for name, fits in FITS.items() for fit in fits]
)
def test_a_recipe_fits_the_machines_it_names(name, hosts, gpus):
    job, settings = read_verl_recipe(RECIPES / f"{name}.yaml")
    assert (job.module, job.recipe) == ("05_grpo_verl", name)
    assert recipe_problems(job, settings, hosts=hosts, gpus_per_host=gpus) == []


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    (tmp_path / "recipe.yaml").write_text("actor: {lr: 1e-4, betas: [9e-1, 1], name: e5}\n")
    overrides = ["actor.clip=2.5E-1", "job.reward_weights=[1, 2e-1]"]
    job, settings = read_verl_recipe(tmp_path / "recipe.yaml", overrides)
    assert job.reward_weights == [1, 0.2]
    assert settings == {"actor": {"lr": 1e-4, "betas": [0.9, 1], "name": "e5", "clip": 0.25}}


def test_files_that_a_recipe_names_exist():
    for path in [*RECIPES.glob("*.yaml"), MODULE / "requirements.txt"]:
        for name in re.findall(r"\b(?:requirements[\w-]*\.txt|[\w-]+\.py)\b", path.read_text()):
            assert (MODULE / name).is_file(), f"{path.name} names {name}"


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(FITS) == {name for name, *_ in BROKEN}


@pytest.mark.parametrize(("name", "hosts", "gpus", "override", "words"), BROKEN)
def test_a_broken_twin_is_refused_in_words(name, hosts, gpus, override, words):
    job, settings = read_verl_recipe(RECIPES / f"{name}.yaml", [override])
    problems = recipe_problems(job, settings, hosts=hosts, gpus_per_host=gpus)
    assert any(words in problem for problem in problems), problems


@pytest.mark.parametrize(("override", "words"), USELESS)
def test_what_no_check_can_reckon_with_is_refused_alone(override, words):
    job, settings = read_verl_recipe(RECIPES / "tiny.yaml", [override])
    (problem,) = recipe_problems(job, settings, hosts=1, gpus_per_host=2)
    assert words in problem


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("job.rewards=accuracy", "job.rewards is 'accuracy': write a list, such as [accuracy]"),
        ("job.rewards=null", "job.rewards must be list[str], not null"),
        ("job.rewards=[]", "job.rewards: there is nothing to learn from"),
        ("job.reward_weights=1.0", "job.reward_weights is 1.0: write a list, such as [1.0]"),
        ("job.reward_weights=['1', '2']", "job.reward_weights holds the text '1': write a number"),
        ("job.reward_weights=[1.0]", "1 numbers for 2 rewards"),
        ("job.device=tpu", "job.device must be one of cpu, gpu"),
        ("job.eval_samples=0", "job.eval_samples is 0, which is too small: the least is 1"),
        ("job.eval_samples='4'", "job.eval_samples holds the text '4': write a number"),
        ("job.eval_problems=0", "job.eval_problems is 0"),
        ("job.evalproblems=3", "did you mean 'eval_problems'?"),
        ("job=3", "job is 3, but it is a section"),
        ("trainer.total_training_steps", "must have the form key=value"),
        ("data.seed=[1", "override 'data.seed=[1': the value is not valid YAML"),
        ("data.seed.x=1", "'seed' holds a value"),
    ],
)
def test_what_is_wrong_on_our_side_is_said_when_reading(override, words):
    with pytest.raises(RecipeError) as caught:
        read_verl_recipe(RECIPES / "tiny.yaml", [override])
    assert words in str(caught.value)


def test_values_are_those_of_the_recipe_or_of_verl():
    assert value_of({"data": {"train_batch_size": 8}}, "data.train_batch_size") == 8
    for settings in ({}, {"data": None}, {"data": {"train_batch_size": None}}):
        assert value_of(settings, "data.train_batch_size") == 1024
    with pytest.raises(KeyError):
        value_of({}, "data.train_bach_size")


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_defaults_are_those_of_verl():
    verl = answer_of(DEFAULTS_OF_VERL, scripts=MODULE, **ON_CPU)
    for key, default in DEFAULTS.items():
        # Each engine has a section of its own, and its name is the strategy's.
        of_one = "fsdp_config" in key or key.endswith((".strategy", "model_engine"))
        engines = ("dp",) if of_one else ("megatron",) if ".megatron." in key else ("dp", "megatron")
        for engine in engines:
            assert verl[engine][key] == default, (engine, key)


@pytest.mark.job
@pytest.mark.timeout(900)
def test_verl_takes_every_recipe_and_refuses_what_it_does_not_know():
    cases = [(name, *fit, "") for name, fits in FITS.items() for fit in fits]
    cases += [case[:4] for case in REFUSED_BY_VERL]
    answers = answer_of(COMPOSE, json.dumps(cases), scripts=MODULE, **ON_CPU)
    for case, answer in zip(cases, answers, strict=True):
        refused = next((words for *start, words in REFUSED_BY_VERL if tuple(start) == tuple(case)), None)
        if refused:
            assert answer.startswith("verl refuses this recipe") and refused in answer, (case, answer)
        else:
            engine = "megatron" if case[0] == "megatron" else "fsdp2"
            assert answer == f"ok {engine} {case[1]}x{case[2]}", (case, answer)


def right_answer_of(tokens: int) -> str:
    """A right answer in its format, as long as the reward counts it."""
    start, end = "<think>", "</think><answer>9</answer>"
    return start + " 7" * (tokens - len(TOKEN_ESTIMATE.findall(start + end))) + end


# An answer's share of the length that is allowed -> what soft_overlong gives it
LENGTHS = {0.6: 1.0, 0.9: 0.5, 1.0: 0.0}


@pytest.mark.parametrize("recipe", sorted(FITS))
def test_the_length_reward_goes_by_the_limit_of_the_recipe(recipe):
    job, settings = read_verl_recipe(
        RECIPES / f"{recipe}.yaml", ["job.rewards=[soft_overlong]", "job.reward_weights=null"]
    )
    limit = settings["data"]["max_response_length"]
    for share, earned in LENGTHS.items():
        text = right_answer_of(round(share * limit))
        score = compute_score("", text, "9", **score_arguments(job, settings))["soft_overlong"]
        assert score == pytest.approx(earned, abs=0.05), (share, limit)


def row_with(answer: str, **columns) -> dict:
    message = {"role": "user", "content": "3 + 6 ="}
    row = {
        "prompt": [message],
        "question": "3 + 6 =",
        "answer": answer,
        "task": "sums",
        "split": "train",
        "index": 0,
    }
    return {**row, **columns}


@pytest.mark.job
@pytest.mark.timeout(900)
def test_verl_calls_the_rewards_with_the_limit_of_the_recipe_and_the_opening_of_the_template():
    cases = [
        (right_answer_of(round(share * 1024)).removeprefix("<think>"), row_with("9")) for share in LENGTHS
    ]
    scores = answer_of(SCORES, json.dumps([[], cases]), scripts=MODULE, **ON_CPU)
    for score, earned in zip(scores, LENGTHS.values(), strict=True):
        assert score["accuracy"] == score["format"] == 1.0
        assert score["soft_overlong"] == pytest.approx(earned, abs=0.02)
        assert score["score"] == pytest.approx(1.25 + 0.25 * score["soft_overlong"])


@pytest.mark.job
@pytest.mark.timeout(900)
def test_verl_calls_rewards_and_a_verifier_of_ones_own_with_the_columns_of_the_data(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    overrides = [
        "job.rewards=[accuracy, own.brevity, own.later]",
        "job.reward_weights=[1.0, 0.5, 2.0]",
        "job.verifier=own.same_word",
    ]
    text = "</think><answer>NINE</answer>"
    cases = [  # a column may have a type in each row
        (text, row_with("nine", allowed=100)),
        (text, row_with("nine", allowed="5")),
        (text, row_with("ten", allowed=None)),
    ]
    path = ":".join(map(str, (tmp_path, MODULE, ROOT / "scripts")))
    scores = answer_of(SCORES, json.dumps([overrides, cases]), scripts=MODULE, PYTHONPATH=path, **ON_CPU)
    assert [score["accuracy"] for score in scores] == [1.0, 1.0, 0.0]
    assert [score["own.brevity"] for score in scores[:2]] == [1.0, 0.0]
    assert math.isnan(scores[2]["own.brevity"]), "no opinion"
    assert [score["score"] for score in scores] == [3.5, 3.0, 2.0]
    assert len({tuple(score) for score in scores}) == 1, "verl wants the same names for each completion"


def test_a_model_that_lies_on_the_first_host_only_is_refused(tmp_path, monkeypatch):
    temporary, channel = tmp_path / "tmp", tmp_path / "input" / "data" / "base"
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    for source in (channel, "org/name"):
        check_source(str(source), "channel:base", hosts=2)
    unpacked = str(temporary / "base-x1")
    check_source(unpacked, "channel:base", hosts=1)
    with pytest.raises(
        RecipeError, match="channel:base .* lies on the first host only: give the whole model as"
    ):
        check_source(unpacked, "channel:base", hosts=2)


def test_training_data_in_s3_is_counted_too(make_trainer, endpoint, tmp_path):
    source = stage_source(MODULE, build=tmp_path)
    folders = write_splits(make_splits("chain_sum", {"train": 8, "test": 4}), tmp_path / "data")
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="verl-rows")
    for split, folder in folders.items():
        s3.upload_file(str(folder / f"{split}.jsonl"), "verl-rows", f"{split}/{split}.jsonl")
    channels = [InputData(channel_name=split, data_source=f"s3://verl-rows/{split}") for split in folders]

    def check(*overrides: str):
        trainer = make_trainer(
            "",
            source_code=SourceCode(
                source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
            ),
            distributed=RayCluster(process_count_per_node=2),
            hyperparameters={"config": "recipes/tiny.yaml", "overrides": list(overrides)},
        )
        return preflight(trainer, channels, recipe=check_verl_recipe)

    assert "2 steps of 8 of the 8 prompts" in str(check("trainer.total_training_steps=2"))
    with pytest.raises(PreflightError, match="A step takes data.train_batch_size = 16 prompts, and .* has 8"):
        check("data.train_batch_size=16")


def test_preflight_knows_recipes_for_verl(make_trainer, tmp_path):
    source = stage_source(MODULE, build=tmp_path)
    folders = write_splits(make_splits("chain_sum", {"train": 8, "test": 4}), tmp_path / "data")

    def check(*overrides: str, slots: int = 2, **hyperparameters: str):
        trainer = make_trainer(
            "",
            source_code=SourceCode(
                source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
            ),
            distributed=RayCluster(process_count_per_node=slots),
            hyperparameters={"config": "recipes/tiny.yaml", "overrides": list(overrides), **hyperparameters},
        )
        channels = [InputData(channel_name=split, data_source=str(path)) for split, path in folders.items()]
        return preflight(trainer, channels, recipe=check_verl_recipe)

    found = str(check("trainer.total_training_steps=2"))
    assert "8 prompts x 8 completions a step on 2 slots of Ray" in found
    assert (
        "2 steps of 8 of the 8 prompts: 2 times through them" in found and "eval_max_new_tokens" not in found
    )
    assert "eval_max_new_tokens is 32, but completions have up to 96" in str(
        check("job.eval_max_new_tokens=32")
    )
    with pytest.raises(PreflightError, match="A step takes data.train_batch_size = 16 prompts, and .* has 8"):
        check("data.train_batch_size=16")
    with pytest.raises(PreflightError, match="train_max_samples lets no more than 4 in"):
        check("data.train_max_samples=4")
    with pytest.raises(PreflightError, match=r"no file my_rewards\.py beside the training script"):
        check("job.rewards=[accuracy, my_rewards.brevity]")
    with pytest.raises(PreflightError, match="verifier 'nmber'.*did you mean 'number'"):
        check("job.verifier=nmber")
    with pytest.raises(PreflightError, match="cannot be dealt evenly to 3 copies"):
        check(slots=3)
    with pytest.raises(PreflightError, match="did you mean 'accuracy'"):
        check("job.rewards=[acuracy, format]")
    with pytest.raises(PreflightError, match="'eight': write a whole number"):
        check("data.train_batch_size=eight")
    with pytest.raises(PreflightError) as caught:  # SmolLM2 has 9 attention heads
        check(f"{ROLLOUT}.tensor_model_parallel_size=2", config="recipes/small.yaml")
    assert "9 attention heads cannot be dealt evenly to 2 GPUs" in str(caught.value)
    assert "job.device is gpu, and jobs of local mode have none" in str(caught.value)
    assert "use_vllm" not in str(caught.value), "that is a word of TRL's recipes"
    with pytest.raises(PreflightError, match="write it as overrides"):
        check(learning_rate="1e-4")
