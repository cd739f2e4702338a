"""Preflight of memory: what the READMEs recommend fits, and what is known not to fit is refused, by moment."""

import ast
import importlib.util
from pathlib import Path

import pytest
import yaml
from job.recipe import read_recipe
from job_requests import module_request
from lesson.verl_checks import check_verl_recipe
from workshop.checks.accelerate_file import check_launcher
from workshop.checks.instances import gpu_bytes
from workshop.checks.machine_checks import check_machines
from workshop.checks.memory import SHAPES, dpo_estimate, estimate, head_bytes, shape_of
from workshop.checks.memory_checks import check_memory, moments
from workshop.checks.recipe_values import recipe_values
from workshop.checks.request import NOTE, OK, PROBLEM, Check, JobRequest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = {path.name[:2]: path for path in ROOT.glob("[0-9][0-9]_*")}


def request_of(
    module: str, instance_type: str, hosts: int = 1, processes: int | None = None, **changes
) -> JobRequest:
    launcher = {"process_count_per_node": processes, **changes.pop("launcher", {})}
    return module_request(module, instance_type, hosts=hosts, launcher=launcher, **changes)


def memory(module: str, recipe: str, instance_type: str, hosts: int = 1, processes: int | None = None, script="train.py",
           **settings) -> list[Check]:  # fmt: skip
    request = request_of(module, instance_type, hosts, processes, entry_script=script)
    recipe_settings = read_recipe(FOLDERS[module] / "scripts" / "recipes" / f"{recipe}.yaml")
    return list(check_memory(request, recipe_settings | settings))


def rows() -> list[tuple[str, str, dict]]:
    """Every recipe that there is, with the machine that machines.yaml names for it."""
    found = []
    for module, folder in sorted(FOLDERS.items()):
        for recipe, row in yaml.safe_load((folder / "machines.yaml").read_text()).items():
            if (folder / "scripts" / "recipes" / f"{recipe}.yaml").is_file():
                found.append((module, recipe, row))
    return found


@pytest.mark.parametrize(
    ("module", "recipe", "row"), rows(), ids=lambda value: value if isinstance(value, str) else ""
)
def test_every_recipe_fits_the_machine_that_it_is_meant_for(module, recipe, row):
    request = request_of(
        module,
        row["instance_type"],
        row["instance_count"],
        row["process_count"],
        launcher={"config_file": row.get("accelerate_config")},
        hyperparameters={"config": f"recipes/{recipe}.yaml"},
    )
    if module == "05":
        settings, checks = check_verl_recipe(request)
    else:
        settings, checks = read_recipe(request.source_dir / "recipes" / f"{recipe}.yaml"), []
    checks = [*checks, *check_memory(request, settings), *check_machines(request, settings)]
    checks += check_launcher(request, settings)
    assert [check for check in checks if check.status == PROBLEM] == []
    if request.gpus:
        assert any(check.name == "memory" and check.status == OK for check in checks)


@pytest.mark.parametrize(
    ("module", "recipe", "instance_type", "hosts", "processes", "settings"),
    [
        ("01", "small", "ml.g5.xlarge", 1, 1, {}),
        ("01", "full", "ml.g6e.xlarge", 1, 1, {}),  # its README: four GPUs make it faster, one is enough
        ("03", "full", "ml.g6e.12xlarge", 2, 4, {}),
        ("03", "full", "ml.g6.12xlarge", 1, 4, {"lora_rank": 32, "quantization": "nf4", "per_device_train_batch_size": 1,
                                                "eval_batch_size": 16}),
        ("04", "full", "ml.p5.4xlarge", 1, 1, {}),
    ],
)  # fmt: skip
def test_what_the_readmes_say_besides(module, recipe, instance_type, hosts, processes, settings):
    assert [
        check.status for check in memory(module, recipe, instance_type, hosts, processes, **settings)
    ] == [OK]


@pytest.mark.parametrize(
    ("module", "recipe", "instance_type", "settings", "says"),
    [
        ("03", "full", "ml.g6e.12xlarge", {"fsdp": None}, "A training step needs about 68 GB on each GPU, which has 48 GB"),
        ("03", "full", "ml.g6.12xlarge", {}, "The evaluation after training needs about 32 GB"),
        ("02", "full", "ml.g6.12xlarge", {"lora_rank": 0}, "A training step needs about 32 GB"),
        ("02", "full", "ml.g6e.12xlarge", {"eval_batch_size": 400, "eval_problems": 400}, "The evaluation before training needs about 58 GB"),
        ("02", "full", "ml.g6e.12xlarge", {"vllm_gpu_memory_utilization": 0.95}, "Generating with vLLM needs about 51 GB"),
        ("02", "full", "ml.g6e.12xlarge", {"vllm_gpu_memory_utilization": 0.05}, "raise vllm_gpu_memory_utilization"),
        ("02", "full", "ml.g6e.12xlarge", {"vllm_gpu_memory_utilization": 0.16, "vllm_max_model_length": None},
         "without which vLLM plans for the 40,960 tokens"),
        ("02", "full", "ml.g6.12xlarge", {"vllm_enable_sleep_mode": False, "eval_batch_size": 200}, "vLLM 8 GB"),
        ("04", "full", "ml.g6.xlarge", {"per_device_train_batch_size": 16, "max_completion_length": 8192}, "A training step needs about"),
        ("01", "full", "ml.g6.12xlarge", {"quantization": None, "eval_batch_size": 100}, "lower eval_batch_size"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(module, recipe, instance_type, settings, says):
    found = memory(module, recipe, instance_type, processes=None if module != "04" else 1, **settings)
    problems = [check.detail for check in found if check.status == PROBLEM]
    assert any(says in problem for problem in problems), found
    assert OK not in {check.status for check in found}


def test_a_share_that_is_enough_for_the_recipe_s_window_is_fine():
    assert [
        check.status for check in memory("02", "full", "ml.g6e.12xlarge", vllm_gpu_memory_utilization=0.16)
    ] == [OK]


def test_pairs_of_the_models_own_answers_need_room_for_them():
    [fits] = memory(
        "01", "small", "ml.g6.xlarge", processes=1, script="pairs_sampled.py", pair_batch_size=500
    )
    assert fits.status == OK
    [problem] = memory(
        "01", "small", "ml.g6.xlarge", processes=1, script="pairs_sampled.py", pair_batch_size=2000
    )
    assert problem.status == PROBLEM and "lower pair_batch_size" in problem.detail


def test_a_reward_model_learns_beside_the_model_that_it_is_made_of():
    job = {"module": "02", "recipe": "reward_model_gpu", "processes": 1, "script": "train_reward_model.py"}
    assert [check.status for check in memory(instance_type="ml.g6e.12xlarge", **job)] == [OK]
    problems = memory(instance_type="ml.g6.xlarge", **job)
    assert any(check.detail.startswith("A training step needs about 39 GB") for check in problems), problems


def test_a_job_that_evaluates_through_its_engine_needs_no_cache_of_its_own():
    request = request_of("04", "ml.g6e.2xlarge", processes=1)
    settings = read_recipe(FOLDERS["04"] / "scripts" / "recipes" / "full.yaml")
    names = {}
    for engine in (True, False):
        recipe = recipe_values(request, settings | {"use_vllm": engine})
        found = moments(request, recipe, SHAPES["Qwen3-8B"], gpu_bytes("ml.g6e.2xlarge", "us-east-1"))
        names[engine] = {moment.name for moment in found}
    assert names[True] == {"A training step", "Generating with vLLM"}
    assert "The evaluation before training" in names[False]


def test_what_is_not_checked():
    assert memory("02", "tiny", "ml.g6.xlarge") == []  # on the CPU of a machine with a GPU
    assert memory("02", "tiny", "ml.c5.xlarge") == []
    [unknown] = memory("02", "full", "ml.g6e.12xlarge", base_model="hub:some/other")
    assert unknown.status == NOTE and "hub:some/other" in unknown.detail
    assert memory("02", "full", "ml.g6e.12xlarge", eval_batch_size="many") == []  # check_recipe says so
    local = request_of("02", "ml.g6e.12xlarge", local=True)
    assert list(check_memory(local, read_recipe(FOLDERS["02"] / "scripts" / "recipes" / "full.yaml"))) == []


def test_a_model_of_ones_own_is_known_by_its_configuration():
    config = {
        "model_type": "qwen3", "num_attention_heads": 32, "num_hidden_layers": 36, "hidden_size": 2560, "head_dim": 128,
        "intermediate_size": 9728, "num_key_value_heads": 8, "vocab_size": 151936, "tie_word_embeddings": True,
            "max_position_embeddings": 40960,
    }  # fmt: skip
    assert shape_of("channel:model", config) == SHAPES["Qwen3-4B"] == shape_of("hub:Qwen/Qwen3-4B-Base")
    assert shape_of("channel:model", config | {"model_type": "gemma3"}) is None
    assert shape_of("channel:model", {"model_type": "qwen3"}) is None and shape_of("channel:model") is None
    request = request_of("02", "ml.g6.12xlarge", model_config=config)
    settings = read_recipe(FOLDERS["02"] / "scripts" / "recipes" / "full.yaml") | {
        "base_model": "channel:model",
        "lora_rank": 0,
    }
    assert any(check.status == PROBLEM for check in check_memory(request, settings))


def test_dpo_holds_two_answers_and_a_reference_where_it_must():
    shape = SHAPES["Qwen3-0.6B"]
    recipe = {
        "per_device_train_batch_size": 2,
        "max_length": 1024,
        "bf16": True,
        "gradient_checkpointing": True,
    }
    asked, precomputed = (
        dpo_estimate(shape, recipe | {"precompute_ref_log_probs": given}, devices=1)
        for given in (False, True)
    )
    assert asked.parameters == 2 * precomputed.parameters
    adapters = dpo_estimate(shape, recipe | {"lora_rank": 8, "dtype": "bfloat16"}, devices=1)
    assert adapters.parameters < 0.6 * precomputed.parameters
    more = dpo_estimate(shape, recipe | {"per_device_train_batch_size": 4}, devices=1)
    tile = head_bytes(shape, 2 * 2 * 1024, 2)  # as large for twice as many tokens
    assert more.activations - tile == pytest.approx(2 * (asked.activations - tile), rel=0.01)


def test_the_tile_of_the_head_is_the_one_that_trl_computes_on():
    """Read from its source: Triton, which the kernel needs, comes with PyTorch's builds for GPUs only."""
    folder = Path(importlib.util.find_spec("trl").submodule_search_locations[0])
    constants = {}
    for name in ("kernels/chunked_logprob.py", "trainer/utils.py"):
        for line in ast.parse((folder / name).read_text(encoding="utf-8")).body:
            if isinstance(line, ast.Assign) and isinstance(line.value, ast.Constant):
                constants[line.targets[0].id] = line.value.value
    tokens, words = constants["TOKEN_CHUNK_SIZE"], constants["_CHUNKED_LOGPROB_CHUNK_SIZE"]
    assert head_bytes(SHAPES["Qwen3-4B"], 10**6, 2) == tokens * words * 2
    assert head_bytes(SHAPES["tiny"], 100, 4) == 100 * SHAPES["tiny"].vocabulary * 4


def test_eight_bit_optimizers_and_completions_that_are_generated_at_once():
    recipe = {"per_device_train_batch_size": 8, "max_completion_length": 512, "lora_rank": 32, "bf16": True}
    usual, eight = (
        estimate(SHAPES["Qwen3-8B"], recipe | {"optim": optim}, devices=1)
        for optim in ("adamw_torch", "adamw_8bit")
    )
    assert usual.optimizer == 4 * eight.optimizer
    gathered = estimate(SHAPES["Qwen3-8B"], recipe | {"gradient_accumulation_steps": 4}, devices=1)
    assert gathered.kv_cache == 4 * usual.kv_cache and gathered.activations == usual.activations


@pytest.mark.parametrize(
    ("hosts", "slots", "says"),
    [
        (1, 8, None),
        (2, 8, None),
        (2, 1, "The actor needs about 46 GB on each of 2 GPUs of 43 GB"),
        (1, 2, "The actor needs about 46 GB on each of 2 GPUs of 43 GB"),
    ],
)
def test_verl_is_given_slots_and_not_all_the_gpus_that_there_are(hosts, slots, says):
    request = request_of(
        "05", "ml.p4d.24xlarge", hosts, slots, hyperparameters={"config": "recipes/full.yaml"}
    )
    _, checks = check_verl_recipe(request)
    problems = "\n".join(check.detail for check in checks if check.status == PROBLEM)
    assert says in problems if says else problems == ""


def test_verls_evaluation_is_one_model_on_the_gpus_of_one_host():
    overrides = ["job.eval_batch_size=300", "job.eval_max_new_tokens=16384"]
    request = request_of(
        "05", "ml.p4d.24xlarge", 1, 8, hyperparameters={"config": "recipes/full.yaml", "overrides": overrides}
    )
    _, checks = check_verl_recipe(request)
    assert any("lower job.eval_batch_size" in check.detail for check in checks if check.status == PROBLEM)
