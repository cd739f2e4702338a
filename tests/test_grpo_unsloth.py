"""04_grpo_unsloth: its requirements install and work together, its recipes, and its train.py in real processes.

Unsloth allows other versions of transformers and TRL than these tests have, so everything that needs it runs in the
environment that the local endpoint builds for the job.
"""

import ast
import importlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT, ScriptJob, answer_of, module_python, run_code, unsloth_preload
from job.recipe import read_recipe
from own_task import FEW as OWN_TASK
from own_task import check_own_task, write_own_task
from safetensors import safe_open

SCRIPTS = ROOT / "04_grpo_unsloth" / "scripts"
RECIPES = ["tiny", "smoke", "smoke_gpu", "small", "full"]
FEW = {
    **OWN_TASK,
    "max_steps": 4,
    "save_strategy": "steps",
    "save_steps": 2,
    "per_device_train_batch_size": 16,
    "eval_problems": 20,
}
PROBE = """
from unsloth_first import FastLanguageModel
import json, os
import trl
from arguments import LATER_KEYS, SCRIPTS
from job.arguments import RecipeError
from job.recipe import parse_arguments
from job.settings import describe_config
from workshop.checks.signatures import load_signature

def parsed(name, *more):
    arguments = ["--config", f"recipes/{name}.yaml", "--output_dir", "unused", "--use_cpu", "true", "--bf16", "false"]
    job, config = parse_arguments(SCRIPTS["train.py"], [*arguments, *more])
    return {"weights": len(config.reward_weights), "rewards": len(job.rewards), "module": job.module,
            "recipe": job.recipe, "groups": config.generation_batch_size % config.num_generations,
            "longest": [job.eval_max_new_tokens, config.max_completion_length],
            "room": config.vllm_max_model_length - config.max_completion_length}

def refusal(*more, **environment):
    os.environ.update(environment)
    try:
        parsed("tiny", *more)
        return None
    except RecipeError as error:
        return str(error)
    finally:
        for name in environment:
            del os.environ[name]

mine, recorded = describe_config(trl.GRPOConfig), load_signature("trl.GRPOConfig")
print("ANSWER " + json.dumps({
    "recipes": {name: parsed(name) for name in ("tiny", "smoke", "smoke_gpu", "small", "full")},
    "refusals": {"none": refusal(), "processes": refusal(WORLD_SIZE="2"),
                 "hosts": refusal(WORLD_SIZE="2", SM_HOST_COUNT="2"), "adapters": refusal("--lora_rank=0")},
    "keys": {"later": sorted(set(recorded) - set(mine)), "gone": sorted(set(mine) - set(recorded))},
    "lacks": sorted(LATER_KEYS),
}))
"""


@pytest.fixture(scope="module")
def python() -> Path:
    """The interpreter of the module's jobs."""
    return module_python(SCRIPTS)


@pytest.fixture(scope="module")
def probe(python) -> dict:
    """What one process with Unsloth in it found out."""
    return answer_of(PROBE, scripts=SCRIPTS, python=python)


@pytest.fixture(scope="module")
def own_task(tmp_path_factory) -> tuple[dict[str, Path], dict[str, str]]:
    """Channels and environment of the jobs."""
    return write_own_task(tmp_path_factory.mktemp("task"))


@pytest.fixture(scope="module")
def job(python, own_task, tmp_path_factory) -> ScriptJob:
    """A job that nothing interrupts, with a reward and a verdict of its own."""
    return run_04(tmp_path_factory.mktemp("job"), own_task, python, preload=None)


def run_04(folder: Path, own_task, python: Path, **options) -> ScriptJob:
    """A short job of 04's script, to its end."""
    channels, environment = own_task
    given = {"preload": unsloth_preload(python), "python": python, "timeout": 600, **options}
    return ScriptJob(SCRIPTS / "train.py", folder, channels, FEW, **given).run(environment=environment)


@pytest.mark.job
@pytest.mark.timeout(1800)
def test_the_requirements_agree_with_each_other(python):
    result = subprocess.run([python, "-m", "pip", "check"], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout


@pytest.mark.job
def test_torchvision_is_still_in_the_way(python):
    """When this fails, Unsloth does without torchvision or it loads: remove compat/no_torchvision.py."""
    code = """
import torch
from importlib.metadata import requires, version
needed = any(line.startswith("torchvision") and "extra ==" not in line for line in requires("unsloth"))
print(needed, torch.version.cuda is None and "+cpu" not in version("torchvision"))
import unsloth
"""
    result = run_code(code, scripts=SCRIPTS, python=python)
    needed, of_another_build = result.stdout.splitlines()[0].split()
    assert needed == "True"
    if sys.platform == "darwin" or of_another_build == "False":
        pytest.skip("here torchvision is of the same build as torch")
    assert result.returncode == 1 and "torchvision" in result.stderr


@pytest.mark.job
def test_the_packaged_model_can_be_converted_here(python, tmp_path):
    """The conversion is a process of its own, without Unsloth, in the same environment."""
    code = "from unsloth_first import *; from job.models import load_base; import json\n"
    code += "print('ANSWER ' + json.dumps(load_base('pypi:smollm2')[0].config.model_type))"
    assert answer_of(code, scripts=SCRIPTS, python=python, RL_MODEL_CACHE=str(tmp_path)) == "llama"


@pytest.mark.job
@pytest.mark.parametrize("name", RECIPES)
def test_recipe_fits_the_trl_that_the_job_installs(probe, name):
    found = probe["recipes"][name]
    assert (found["module"], found["recipe"]) == ("04_grpo_unsloth", name)
    assert found["weights"] == found["rewards"]
    assert found["groups"] == 0
    assert found["longest"][0] == found["longest"][1]  # what is trained is what is measured
    assert found["room"] >= 256  # for the prompt


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_have_the_same_shape(name):
    assert set(read_recipe(SCRIPTS / "recipes/tiny.yaml")) <= set(
        read_recipe(SCRIPTS / f"recipes/{name}.yaml")
    )


@pytest.mark.job
def test_preflight_knows_the_keys_that_this_trl_lacks(probe):
    """Preflight reads the signatures of the workshop's newer TRL; what differs is in LATER_KEYS."""
    assert probe["keys"] == {"later": probe["lacks"], "gone": []}


@pytest.mark.job
def test_several_processes_and_hosts_and_no_adapters_are_refused(probe):
    found = probe["refusals"]
    assert found["none"] is None
    assert "2 processes on 1 host(s)" in found["processes"] and "03_grpo_trl_fsdp" in found["processes"]
    assert "2 processes on 2 host(s)" in found["hosts"] and "instance_count=1" in found["hosts"]
    assert "lora_rank" in found["adapters"]


@pytest.mark.job
def test_standby_is_on_before_unsloth_begins(python):
    """unsloth_zoo arranges vLLM's memory while it is imported: a value that is set later comes too late."""
    code = """
import json, os, sys
seen = []

class Look:
    def find_spec(self, name, path=None, target=None):
        if name == "unsloth":
            seen.append(os.environ.get("UNSLOTH_VLLM_STANDBY"))

sys.meta_path.insert(0, Look())
import unsloth_first
print("ANSWER " + json.dumps(seen))
"""
    assert answer_of(code, scripts=SCRIPTS, python=python) == ["1"]


def parameters(source: Path, class_name: str, method: str) -> set[str]:
    """Names of a method's parameters, read from the file: Unsloth's GPU classes cannot be imported without one."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    owner = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == class_name)
    function = next(node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == method)
    return {argument.arg for argument in function.args.args + function.args.kwonlyargs}


@pytest.mark.job
def test_unsloths_keywords_exist_on_a_gpu(python):
    """Both methods take any keyword and drop what they do not know, so only a look at the names finds a wrong one."""
    models = next(python.parents[1].glob("lib/python3*/site-packages/unsloth/models"))
    known = {
        "from_pretrained": parameters(models / "loader.py", "FastLanguageModel", "from_pretrained"),
        "get_peft_model": parameters(models / "llama.py", "FastLlamaModel", "get_peft_model"),
    }
    calls = [
        (path.name, node.func.attr, keyword.arg)
        for path in sorted(SCRIPTS.glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func).startswith("FastLanguageModel.")
        for keyword in node.keywords
        if keyword.arg
    ]
    assert {("train.py", "from_pretrained", "fast_inference"), ("train.py", "get_peft_model", "r")} <= set(
        calls
    )
    assert [call for call in calls if call[2] not in known[call[1]]] == []


@pytest.mark.job
def test_a_job_trains_4_bits_and_saves_adapters_and_a_merged_model(job):
    assert "4-bit = True" in job.log
    assert [entry["step"] for entry in job.history()] == [1, 2, 3, 4]
    adapters = job.weights("adapter/adapter_model.safetensors")
    assert any(any(value) for name, value in adapters.items() if "lora_B" in name)
    assert json.loads((job.model / "base_model.json").read_text()) == {"base_model": "asset:tiny"}
    with safe_open(job.model / "model.safetensors", framework="np") as merged:
        # Whole numbers again, not packed ones.
        assert merged.get_tensor("model.layers.0.mlp.up_proj.weight").shape == (288, 96)
    summary = job.output_json("summary.json")
    assert (summary["trainer"], summary["processes"], summary["steps"]) == ("trl.GRPOTrainer", 1, 4)
    assert {"unsloth", "trl", "torch"} <= set(summary["versions"])


@pytest.mark.job
def test_a_job_that_goes_on_from_a_checkpoint_ends_with_the_same_weights(job, python, own_task, tmp_path):
    shutil.copytree(job.checkpoints / "checkpoint-2", tmp_path / "checkpoints" / "checkpoint-2")
    again = run_04(tmp_path, own_task, python)
    assert "Going on from checkpoint-2." in again.log and "step=1/" not in again.log
    assert again.history() == job.history()
    for file in ("adapter/adapter_model.safetensors", "model.safetensors"):
        assert again.weights(file) == job.weights(file)


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_job_started_again_after_its_last_step_saves_the_same_weights(job, python, own_task, tmp_path):
    again = run_04(tmp_path, own_task, python, checkpoints=job.checkpoints)
    assert "does not say which" not in again.log, "the checkpoint lacks a part of what it was made of"
    assert "checkpoint-4 holds all 4 steps: nothing is left to train." in again.log and again.steps() == []
    assert again.history() == job.history()
    for file in ("adapter/adapter_model.safetensors", "model.safetensors"):
        assert again.weights(file) == job.weights(file)


@pytest.mark.job
def test_an_own_reward_and_an_own_verdict(job):
    check_own_task(job.history(), job.output_json("evaluation_before.json"))


@pytest.fixture
def hackable(monkeypatch):
    """The module's file of own rewards."""
    monkeypatch.syspath_prepend(SCRIPTS)
    return importlib.import_module("rewards_hackable")


def test_the_hackable_rewards_are_named_as_any_of_ones_own(hackable):
    from rl.rewards import get_rewards

    names = ["rewards_hackable.concise", "rewards_hackable.concise_guarded"]
    asked = {"verifier": lambda given, gold: given == "nine", "opening": "<think>"}
    conversation = [{"role": "assistant", "content": "</think><answer>nine</answer>"}]
    for reward in get_rewards(names, **asked):
        assert reward(completions=[conversation], answer=["9"], prompts=[[]])[0] > 0.5


HACKS = [
    "<answer></answer>",
    "<think></think><answer>8</answer>",
    "<answer>",
    "<answer>8</answer><answer>9</answer>",
]


@pytest.mark.parametrize("text", HACKS)
def test_the_hackable_reward_pays_more_for_less_and_the_guarded_one_nothing(hackable, text):
    honest = "<think>2 + 6 = 8\n8 - 0 = 8\n8 + 1 = 9</think><answer>9</answer>"
    assert hackable.concise([text], answer=["9"])[0] > hackable.concise([honest], answer=["9"])[0]
    assert hackable.concise_guarded([text, honest], answer=["9", "9"])[0] == 0.0
    assert hackable.concise_guarded([honest], answer=["9"])[0] > 0.75


def test_the_guarded_reward_prefers_the_shorter_of_two_right_answers(hackable):
    short, long = "<think></think><answer>9</answer>", "<think>2 + 7 = 9</think><answer>9</answer>"
    scores = hackable.concise_guarded([short, long, "x" * 100_000, None], answer=["9"] * 4)
    assert 1.0 > scores[0] > scores[1] > 0.75 and scores[2:] == [0.0, 0.0]
