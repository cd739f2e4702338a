"""What recipes say about themselves is so: the arithmetic in their comments, the loss, lengths and the machines they need.

A comment is found by its form, such as "4 GPUs x 8 completions x 4 accumulation steps = 128 completions".
"""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from harness import ROOT
from job.recipe import read_recipe
from job_requests import job_request
from rl.tasks import TASKS
from workshop.checks.duration import job_duration
from workshop.checks.instances import gpu_bytes, gpu_count
from workshop.checks.request import read_script
from workshop.session.machines import Machine, read_machine, read_machines

RECIPES = sorted(ROOT.glob("[0-9][0-9]_*/scripts/recipes/*.yaml"))
MACHINES = sorted(ROOT.glob("[0-9][0-9]_*/machines.yaml"))
# They run on the machine of the recipe they are for.
SIDE_JOBS = {"reward_model", "reward_model_gpu", "distilled", "letters"}
ROWS = [(path.parent, recipe) for path in MACHINES for recipe in read_machines(path)]
NUMBER = r"\d[\d,]*(?:\.\d+)?(?: G\b)?"
PRODUCT = re.compile(rf"([^=]+ x [^=]+) = ({NUMBER})( GB)?")
IMAGE_OF_VLLM = "pytorch:2.13-cu133-amzn2023-sagemaker"  # vLLM 0.30 brings torch 2.13
LEAST_ROOM = 256  # tokens for a prompt: the longest of 2,000 of gsm_symbolic has 206 in SmolLM2's tokenizer


def value(text: str) -> float:
    return float(text.replace(",", "").replace(" G", "")) * (1e9 if text.endswith("G") else 1)


def products(text: str) -> list[tuple[list[tuple[float, str]], float]]:
    """The products in a text: the factors with what they count, and what the text says they make."""
    found = []
    for before, made, unit in PRODUCT.findall(text):
        first, *others = before.split(" x ")
        first = re.findall(rf"{NUMBER}[^\d]*$", first)[0]  # without the words before it
        factors = [re.fullmatch(rf"({NUMBER})(.*)", factor) for factor in (first, *others)]
        assert all(factors), f"no product that can be read: {before}"
        found.append(
            (
                [(value(factor[1]), factor[2].strip()) for factor in factors],
                value(made) * (1e9 if unit else 1),
            )
        )
    return found


def comments(path: Path) -> list[str]:
    """The comments of a recipe: each block of lines as one text, each comment behind a value."""
    found, block = [], []
    for line in [*path.read_text().splitlines(), ""]:
        if line.lstrip().startswith("#"):
            block.append(line.lstrip().removeprefix("#").strip())
            continue
        found += [" ".join(block)] if block else []
        found += re.findall(r"\s#\s*(.*)", line)
        block = []
    return found


def names(paths: list[Path]) -> list[str]:
    return [f"{path.parents[2].name}/{path.stem}" for path in paths]


def test_a_wrong_product_would_be_seen():
    (found,) = products("4 GPUs x 8 completions x 4 accumulation steps = 256 completions")
    assert found == ([(4, "GPUs"), (8, "completions"), (4, "accumulation steps")], 256)
    (found,) = products("1.7 G parameters x 12 bytes (weight and two moments) = 20 GB")
    assert found == ([(1.7e9, "parameters"), (12, "bytes (weight and two moments)")], 20e9)
    assert products("8 problems with 8 completions each, 2 x 3") == []


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_products_in_comments_are_right(path):
    for text in comments(path):
        for factors, said in products(text):
            assert said == pytest.approx(math.prod(number for number, _ in factors), rel=0.04), (
                factors,
                said,
            )


def batch_of(recipe: dict[str, Any], machine: Machine) -> int:
    """Completions (01: pairs) of one optimizer step, on all devices together."""
    accumulated = recipe.get("gradient_accumulation_steps", 1)
    devices = machine.process_count * machine.instance_count
    return recipe["per_device_train_batch_size"] * accumulated * devices


@pytest.mark.parametrize(
    ("module", "name"),
    [row for row in ROWS if not row[0].name.startswith("05")],
    ids=lambda value: getattr(value, "name", value),
)
def test_batches_in_comments_are_those_of_recipe_and_machine(module, name):
    path = module / "scripts" / "recipes" / f"{name}.yaml"
    recipe, machine = read_recipe(path), read_machine(module / "machines.yaml", name)
    batch = batch_of(recipe, machine)
    numbers = {
        "accumulation steps": recipe.get("gradient_accumulation_steps", 1),
        "GPU": machine.process_count,
        "GPUs": machine.process_count,
        "processes": machine.process_count,
        "completions": recipe["per_device_train_batch_size"],
        "pairs": recipe["per_device_train_batch_size"],
        "": recipe["per_device_train_batch_size"],
    }
    for said in comments(path):
        for factors, total in products(said):
            if {unit for _, unit in factors} <= set(numbers):
                assert [number for number, _ in factors] == [numbers[unit] for _, unit in factors]
                assert total == batch
        for number in re.findall(r"(\d+) (?:pairs|completions) a step", said):
            assert int(number) == batch
        for number in re.findall(r"(\d+) problems (?:a step|with)", said):
            assert int(number) == batch / recipe["num_generations"]


def test_verls_batches_in_comments_are_those_of_the_recipe():
    for path in (ROOT / "05_grpo_verl" / "scripts" / "recipes").glob("*.yaml"):
        recipe = read_recipe(path)
        (line,) = re.findall(r"train_batch_size: \d+(.*)", path.read_text())
        said = re.findall(r"n = (\d+)|([\d,]+) completions", line)
        completions, n = recipe["data"]["train_batch_size"], recipe["actor_rollout_ref"]["rollout"]["n"]
        for of_group, of_step in said:
            assert int((of_group or of_step).replace(",", "")) in (n, completions * n), path


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_the_loss_is_written_out_and_clipping_has_something_to_clip(path):
    """What was sampled by the very weights that learn has a probability ratio of 1, which no bound changes."""
    recipe = read_recipe(path)
    if "num_generations" in recipe:
        assert recipe["loss_type"] == "dapo"
        per_generation = recipe.get("steps_per_generation", recipe.get("gradient_accumulation_steps", 1))
        old = (
            per_generation > recipe.get("gradient_accumulation_steps", 1)
            or recipe.get("num_iterations", 1) > 1
        )
        assert old or not {"epsilon", "epsilon_high"} & set(recipe)
    elif "actor_rollout_ref" in recipe:
        actor = recipe["actor_rollout_ref"]["actor"]
        old = actor["ppo_mini_batch_size"] < recipe["data"]["train_batch_size"]
        assert old or "clip_ratio_high" not in actor


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_vllm_is_told_how_long_sequences_become(path):
    recipe = read_recipe(path)
    if recipe.get("use_vllm"):
        assert recipe["vllm_max_model_length"] - recipe["max_completion_length"] >= LEAST_ROOM


@pytest.mark.parametrize("path", MACHINES, ids=lambda path: path.parent.name)
def test_every_recipe_has_a_machine(path):
    recipes = {found.stem for found in path.parent.glob("scripts/recipes/*.yaml")}
    assert set(read_machines(path)) == recipes - SIDE_JOBS
    assert {"tiny", "smoke", "smoke_gpu", "small", "full"} <= recipes


def installed(scripts: Path, requirements: str) -> set[str]:
    """Packages of a requirements file and of those that it includes."""
    lines = (scripts / requirements).read_text().splitlines()
    found = {re.split(r"[=\[]", line)[0] for line in lines if re.match("[A-Za-z]", line)}
    for line in lines:
        if line.startswith("-r "):
            found |= installed(scripts, line.removeprefix("-r ").strip())
    return found


@pytest.mark.parametrize(("module", "name"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_the_machine_has_what_the_recipe_needs(module, name):
    scripts = module / "scripts"
    machine = read_machine(module / "machines.yaml", name)
    recipe = read_recipe(scripts / "recipes" / f"{name}.yaml")
    gpu = not recipe.get("use_cpu", recipe.get("job", {}).get("device") == "cpu")
    gpus = gpu_count(machine.instance_type, "us-east-1")
    assert machine.task in TASKS
    if not gpu:
        assert (machine.instance_type, gpus) == ("ml.c5.xlarge", 0)
    else:
        assert machine.process_count == gpus, "one process for each GPU"
        assert gpu_bytes(machine.instance_type, "us-east-1")
    if module.name.startswith("05"):
        assert machine.own_image is gpu and (machine.requirements is None) is gpu and not machine.image
        return
    assert machine.requirements
    packages = installed(scripts, machine.requirements)
    uses_vllm = bool(recipe.get("use_vllm"))
    assert ("vllm" in packages) is uses_vllm
    assert machine.image == (IMAGE_OF_VLLM if uses_vllm else "")
    assert "bitsandbytes" in packages or not recipe.get("quantization")
    if machine.accelerate_config:
        assert (scripts / machine.accelerate_config).is_file()
        kind = "cpu" if not gpu else "one_gpu" if gpus == 1 else "multi_gpu"
        assert Path(machine.accelerate_config).stem == kind
    if machine.pair_source:
        assert (scripts / f"pairs_{machine.pair_source}.py").is_file()


@pytest.mark.parametrize(("module", "name"), ROWS, ids=lambda value: getattr(value, "name", value))
def test_an_image_that_a_recipe_names_is_that_of_its_machine(module, name):
    path = module / "scripts" / "recipes" / f"{name}.yaml"
    machine = read_machine(module / "machines.yaml", name)
    assert set(re.findall(r"pytorch:[\w.-]+", " ".join(comments(path)))) <= {machine.image}
    for requirements in re.findall(
        r'^#   SourceCode\(requirements="([\w.-]+)"\)$', path.read_text(), re.MULTILINE
    ):
        assert requirements == machine.requirements


@pytest.mark.parametrize(
    ("module", "name"),
    [row for row in ROWS if row[1] in ("smoke_gpu", "small", "full") and not row[0].name.startswith("05")],
    ids=lambda value: getattr(value, "name", value),
)
def test_a_job_is_not_stopped_before_arithmetic_says_that_it_ends(module, name):
    machine = read_machine(module / "machines.yaml", name)
    recipe = read_recipe(module / "scripts" / "recipes" / f"{name}.yaml")
    request = job_request(
        local=False,
        script=read_script(module / "scripts", "train.py"),
        instance_type=machine.instance_type,
        gpus=machine.process_count,
        hosts=machine.instance_count,
        launcher={"process_count_per_node": machine.process_count},
    )
    expected = job_duration(request, recipe)
    assert expected, "nothing is known about this GPU, or about the model's shape"
    assert machine.max_seconds > 1.5 * expected.total, str(expected)
