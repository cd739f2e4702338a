"""The recipes of 05_grpo_verl: each is accepted by our checks and by verl itself, a broken twin of each is refused.

verl lives in the job's environment, so its part runs there, in one process for all recipes.
"""

import json
import re

import pytest
from harness import answer_of
from verl_keys import DEFAULTS, value_of
from verl_recipe import read_verl_recipe, recipe_problems
from verl_recipes import ACTOR, FITS, MODEL, MODULE, ON_CPU, RECIPES, ROLLOUT

# (recipe, hosts, GPUs on each) -> what is broken, and words of the sentence that refuses it
BROKEN = {
    ("tiny", 1, 2): [
        ("algoritm.gamma=1", "unknown key of verl 'algoritm'; did you mean 'algorithm'?"),
        ("data.shuffel=true", "did you mean 'data.shuffle'?"),
        ("algorithm.use_kl_in_reward=perhaps", "is 'perhaps': write true or false"),
        (f"{ACTOR}.ppo_max_grad=1", "unknown key of verl"),
        ("trainer.balance_batch.x=1", "write true or false"),
        (f"{ROLLOUT}.name=vllm", "which is for GPUs, but job.device is cpu"),
        (f"{ROLLOUT}.n=1", "compared with others to the same prompt"),
        ("data.train_batch_size=6", "not a multiple of ppo_mini_batch_size 8"),
        (f"{ACTOR}.ppo_micro_batch_size_per_gpu=24", "not a multiple of ppo_micro_batch_size_per_gpu 24"),
        (
            f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu=24",
            "not a multiple of rollout.log_prob_micro_batch_size_per_gpu 24",
        ),
        (f"{ACTOR}.strategy=fsdp3", "write fsdp2"),
        (f"{ACTOR}.strategy=fsdp", "must be fsdp2 on a CPU"),
        (f"{ROLLOUT}.tensor_model_parallel_size=2", "holds a whole model in each process"),
        ("algorithm.adv_estimator=grop", "did you mean 'grpo'?"),
        ("model_engine=megatrn", "did you mean 'megatron'?"),
        ("model_engine=megatron", "Set actor_rollout_ref.actor.megatron.vanilla_mbridge: true"),
        (f"{MODEL}.override_config=sdpa", "write names and values, such as {attn_implementation"),
        (f"{MODEL}.lora_rank=8", "it cannot add adapters to its own"),
        (f"{ROLLOUT}.agent.default_agent_loop=tool_agent", "calls tools that are not meant"),
        (f"{ROLLOUT}.agent.default_agent_loop=my_loop", "knows verl's single_turn_agent and tool_agent"),
    ],
    ("tiny", 1, 3): [
        ("data.seed=1", "cannot be dealt evenly to 3 copies"),
    ],
    ("tiny_ulysses", 1, 2): [
        (f"{MODEL}.override_config.attn_implementation=sdpa", "without a word, and train something else"),
        (f"{MODEL}.override_config=null", "On a CPU use packed"),
        (f"{MODEL}.use_remove_padding=false", "use_remove_padding must be true"),
    ],
    ("tiny_ulysses", 1, 3): [
        ("data.seed=1", "3 GPUs are not whole groups of 2"),
    ],
    ("tiny_tensor", 1, 2): [
        (f"{ACTOR}.megatron.sequence_parallel=true", "Megatron's torch norms refuse it"),
        (f"{ACTOR}.megatron.use_distributed_optimizer=true", "its buffers and kernels are CUDA's"),
        (f"{ACTOR}.megatron.context_parallel_size=2", "the attention of Transformer Engine"),
        (f"{ACTOR}.megatron.param_offload=true", "no other memory to move weights to"),
        (f"{ACTOR}.megatron.optimizer_offload=true", "no other memory to move its state to"),
        (f"{ACTOR}.megatron.vanilla_mbridge=false", "Megatron-Bridge, which wants an older transformers"),
        (f"{MODEL}.lora_rank=8", "trains adapters with Megatron-Bridge only"),
        (f"{MODEL}.lora.rank=8", "trains adapters with Megatron-Bridge only"),
        (f"{MODEL}.use_remove_padding=true", "Megatron cannot attend within packed sequences"),
    ],
    ("tiny_pipeline", 1, 2): [
        (f"{ACTOR}.optim.use_checkpoint_opt_param_scheduler=false", "would begin its warm-up once more"),
        (f"{ACTOR}.megatron.pipeline_model_parallel_size=4", "do not hold a whole number of copies"),
    ],
    ("tiny_tensor", 2, 1): [
        ("data.seed=1", "reaches over several hosts of 1 GPUs"),
    ],
    ("tools", 1, 2): [
        (f"{ROLLOUT}.agent.default_agent_loop=single_turn_agent", "rolls out single turns without a word"),
        (f"{ROLLOUT}.multi_turn.function_tool_path=null", "a file that registers tools"),
        (f"{ROLLOUT}.multi_turn.max_assistant_turns=1", "never read its result"),
        (f"{ROLLOUT}.multi_turn.format=gemma4", "in the formats hermes and qwen3_coder"),
    ],
    ("till", 1, 2): [
        (f"{ROLLOUT}.multi_turn.tool_config_path=null", "a file that lists classes of tools with a state"),
        (f"{ROLLOUT}.multi_turn.max_assistant_turns=1", "never read its result"),
    ],
    ("smoke", 1, 2): [
        (f"{ROLLOUT}.name=vllm", "which is for GPUs, but job.device is cpu"),
    ],
    ("smoke_gpu", 1, 1): [
        (f"{ACTOR}.ppo_max_token_len_per_gpu=512", "raise it, or shorten"),
    ],
    ("small", 1, 1): [
        ("custom_reward_function.path=my_rewards.py", "verl's old name"),
        ("actor_rollout_ref.model.lora_rank=1024", "rank 512 at most"),
        (f"{ROLLOUT}.name=vlm", "name is 'vlm'"),
    ],
    ("full", 1, 8): [
        (f"{ROLLOUT}.tensor_model_parallel_size=3", "choose a divisor of 8"),
        (f"{ACTOR}.ppo_max_token_len_per_gpu=1024", "raise it, or shorten"),
        (f"{ROLLOUT}.max_model_len=1024", "vLLM would cut responses short without a word"),
        ("data.max_response_length=2048", "vLLM would cut responses short without a word"),
    ],
    ("full", 2, 8): [
        (f"{ACTOR}.ppo_mini_batch_size=24", "A step takes data.train_batch_size prompts"),
    ],
    ("ulysses", 1, 8): [
        (f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size=3", "not whole groups of 3"),
        (f"{MODEL}.use_remove_padding=false", "use_remove_padding must be true"),
        (f"{MODEL}.override_config.attn_implementation=sdpa", "On a GPU use flash_attention_2"),
        (f"{MODEL}.override_config.attn_implementation=packed", "brings for CPUs alone"),
    ],
    ("megatron", 2, 8): [
        (f"{ACTOR}.megatron.tensor_model_parallel_size=3", "do not hold a whole number of copies"),
        (f"{ACTOR}.megatron.tensor_model_parallel_size=16", "reaches over several hosts"),
        (f"{ACTOR}.megatron.vanilla_mbridge=null", "neither the image nor requirements.txt has it"),
        ("trainer.total_training_steps=2", "fewer steps of warm-up than of training"),
        (f"{MODEL}.lora.rank=16", "or leave model_engine out (FSDP)"),
    ],
    ("megatron", 1, 8): [
        ("data.seed=1", "8 GPUs do not hold a whole number of copies"),
    ],
    ("lora", 1, 8): [
        (f"{ROLLOUT}.tensor_model_parallel_size=16", "choose a divisor of 8"),
    ],
}
# Keys that verl does not have, in the order of the answers: the job refuses them as preflight does.
REFUSED_BY_THE_JOB = [
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
from verl_known_keys import installed_keys
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
answer["keys"] = installed_keys()
print("ANSWER " + json.dumps(answer))
"""


@pytest.mark.parametrize(
    ("name", "hosts", "gpus"), [(name, *fit) for name, fits in FITS.items() for fit in fits]
)
def test_a_recipe_fits_the_machines_it_names(name, hosts, gpus):
    job, settings = read_verl_recipe(RECIPES / f"{name}.yaml")
    assert (job.module, job.recipe) == ("05_grpo_verl", name)
    assert recipe_problems(job, settings, hosts=hosts, gpus_per_host=gpus) == []


def test_files_that_a_recipe_names_exist():
    for path in [*RECIPES.glob("*.yaml"), MODULE / "requirements.txt"]:
        for name in re.findall(r"\b(?:requirements[\w-]*\.txt|[\w-]+\.py)\b", path.read_text()):
            assert (MODULE / name).is_file(), f"{path.name} names {name}"


def test_every_recipe_is_tested():
    assert {path.stem for path in RECIPES.glob("*.yaml")} == set(FITS) == {name for name, *_ in BROKEN}


@pytest.mark.parametrize(
    ("name", "hosts", "gpus", "override", "words"),
    [(*machines, *case) for machines, cases in BROKEN.items() for case in cases],
)
def test_a_broken_twin_is_refused_in_words(name, hosts, gpus, override, words):
    job, settings = read_verl_recipe(RECIPES / f"{name}.yaml", [override])
    problems = recipe_problems(job, settings, hosts=hosts, gpus_per_host=gpus)
    assert any(words in problem for problem in problems), problems


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
        of_other = ".megatron." in key or key.endswith("use_checkpoint_opt_param_scheduler")
        engines = ("dp",) if of_one else ("megatron",) if of_other else ("dp", "megatron")
        for engine in engines:
            assert verl[engine][key] == default, (engine, key)
    known = json.loads((MODULE / "verl_known_keys.json").read_text())
    assert known == verl["keys"], "run `python verl_known_keys.py` in the environment of this module's jobs"


@pytest.mark.job
@pytest.mark.timeout(900)
def test_verl_takes_every_recipe_and_refuses_what_it_does_not_know():
    cases = [(name, *fit, "") for name, fits in FITS.items() for fit in fits]
    cases += [case[:4] for case in REFUSED_BY_THE_JOB]
    answers = answer_of(COMPOSE, json.dumps(cases), scripts=MODULE, **ON_CPU)
    for case, answer in zip(cases, answers, strict=True):
        refused = next((words for *start, words in REFUSED_BY_THE_JOB if tuple(start) == tuple(case)), None)
        if refused:
            assert "unknown key of verl" in answer and refused in answer, (case, answer)
        else:
            megatron = case[0] in ("megatron", "tiny_tensor", "tiny_pipeline")
            engine = "megatron" if megatron else "fsdp2"
            assert answer == f"ok {engine} {case[1]}x{case[2]}", (case, answer)
