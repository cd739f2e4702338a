"""What each script reads from a recipe: said once, in arguments.py beside it, and true of every recipe in the folder."""

import ast
import dataclasses
import re
from pathlib import Path

import pytest
from job.arguments import RunArguments, Script
from job.recipe import read_recipe, setting_problems
from job_requests import job_request
from workshop.checks.recipe_checks import check_recipe
from workshop.checks.request import PROBLEM, JobRequest, read_script
from workshop.checks.signatures import load_signature

ROOT = Path(__file__).resolve().parents[1]
# All modules whose scripts read flat recipes; 05 reads verl's (tests/test_verl_recipes.py).
MODULES = sorted(path.parents[1].name for path in ROOT.glob("[0-9][0-9]_*/scripts/arguments.py"))


def scripts_of(module: str) -> list[tuple[str, Script]]:
    folder = ROOT / module / "scripts"
    names = sorted(path.name for path in folder.glob("*.py"))
    found = [(name, read_script(folder, name)) for name in names]
    return [(name, script) for name, script in found if script]


ALL = [(module, name, script) for module in MODULES for name, script in scripts_of(module)]


def request_for(module: str, name: str, script: Script | None, **changes) -> JobRequest:
    folder = ROOT / module / "scripts"
    options = {
        "source_dir": folder,
        "entry_script": name,
        "hyperparameters": {"config": "recipes/tiny.yaml"},
        "instance_type": "ml.g6.12xlarge",
        "gpus": 4,
        "checkpoints": True,
        "script": script,
    }
    return job_request(**{**options, **changes})


def problems(module: str, name: str, **changes) -> list[str]:
    script = read_script(ROOT / module / "scripts", name)
    assert script
    hyperparameters = {"config": "recipes/tiny.yaml", **changes.pop("hyperparameters", {})}
    request = request_for(module, name, script, hyperparameters=hyperparameters, **changes)
    return [check.detail for check in check_recipe(request)[1] if check.status == PROBLEM]


def test_every_script_that_reads_a_recipe_is_listed():
    for module in MODULES:
        parse = [
            path.name
            for path in sorted((ROOT / module / "scripts").glob("*.py"))
            if "parse_arguments(SCRIPTS[" in path.read_text()
        ]
        listed = {name for name, _ in scripts_of(module)}
        assert parse and set(parse) - {"measure_precision.py"} <= listed  # which reads measure.py's


def sources_behind(script: Path) -> list[Path]:
    """The script and every file of its folder and of the shared packages that it imports or starts, arguments.py left
    out: what declares a key does not read it."""
    found, ahead = [], [script]
    while ahead:
        path = ahead.pop()
        if path in found or path.stem == "arguments":
            continue
        found.append(path)
        text = path.read_text()
        names = [
            node.module
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module
        ]
        started = re.findall(r'with_name\("(\w+)\.py"\)', text)
        for name in [*names, *started]:
            for root in (script.parent, ROOT / "scripts"):
                if (imported := root / f"{name.replace('.', '/')}.py").is_file():
                    ahead.append(imported)
    return found


@pytest.mark.parametrize(
    ("module", "name", "script"), ALL, ids=[f"{module}/{name}" for module, name, _ in ALL]
)
def test_the_script_reads_every_field_it_declares(module, name, script):
    """A field that no line behind the script reads would be a lie."""
    trees = [ast.parse(path.read_text()) for path in sources_behind(ROOT / module / "scripts" / name)]
    read = {node.attr for tree in trees for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    if any("asdict(job)" in ast.unparse(tree) for tree in trees):
        read |= {
            field.name for field in dataclasses.fields(RunArguments)
        }  # job.tracking sends all of them on
    assert {field.name for field in dataclasses.fields(script.arguments)} <= read


@pytest.mark.parametrize("module", MODULES)
def test_every_recipe_fits_a_script_of_its_folder(module):
    for recipe in sorted((ROOT / module / "scripts" / "recipes").glob("*.yaml")):
        found = {
            name: setting_problems(
                read_recipe(recipe), {}, script.reads(load_signature), script.shared(load_signature)
            )
            for name, script in scripts_of(module)
        }
        assert [] in found.values(), (recipe, found)


@pytest.mark.parametrize(
    ("module", "key", "value"),
    [
        ("02_grpo_trl_accelerate", "quantization", "nf4"),
        ("02_grpo_trl_accelerate", "pair_samples", 4),
        ("03_grpo_trl_fsdp", "reward_model", "channel:reward_model"),
        ("04_grpo_unsloth", "reward_model", "channel:reward_model"),
        ("01_dpo_trl", "rewards", ["accuracy"]),
    ],
)
def test_a_key_that_the_script_never_reads_is_refused_by_its_name(module, key, value):
    (problem,) = problems(module, "train.py", hyperparameters={key: value})
    assert f"'{key}'" in problem


def test_a_hyperparameter_for_another_script_of_the_folder_is_refused():
    (problem,) = problems("01_dpo_trl", "train.py", hyperparameters={"pair_samples": 4})
    assert "'pair_samples' is for another script of this folder" in problem
    (problem,) = problems("01_dpo_trl", "pairs_sampled.py", hyperparameters={"learning_rate": 1e-4})
    assert "'learning_rate' is for another script" in problem
    assert problems("01_dpo_trl", "pairs_sampled.py", hyperparameters={"pair_samples": 4, "seed": 1}) == []


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("measure.py", "quantization", "nf4"),
        ("measure.py", "dtype", "bfloat16"),
        ("measure.py", "eval_samples", 2),
        ("export.py", "base_model", "asset:tiny"),
        ("export.py", "learning_rate", 1e-4),
        ("gradient_check.py", "seed", 1),
    ],
)
def test_unsloths_other_scripts_refuse_what_only_the_training_reads(name, key, value):
    (problem,) = problems("04_grpo_unsloth", name, hyperparameters={key: value})
    assert f"'{key}' is for another script" in problem


def test_arguments_that_cannot_be_imported_are_a_problem_and_no_traceback(tmp_path):
    from workshop.checks.request import read_script

    (tmp_path / "arguments.py").write_text("import no_such_module\n")
    with pytest.raises(ImportError, match="ModuleNotFoundError: No module named 'no_such_module'"):
        read_script(tmp_path, "train.py")
    request = request_for(
        "02_grpo_trl_accelerate", "train.py", None, script_problem="arguments.py cannot be imported"
    )
    assert [check.detail for check in check_recipe(request)[1] if check.status == PROBLEM] == [
        "arguments.py cannot be imported"
    ]


def test_no_rewards_are_refused_before_the_job_where_no_reward_model_can_take_their_place():
    (problem,) = problems("03_grpo_trl_fsdp", "train.py", hyperparameters={"rewards": []})
    assert "nothing to learn from" in problem and "reward_model" not in problem
    learned = {"rewards": [], "reward_model": "channel:reward_model"}
    assert problems("02_grpo_trl_accelerate", "train.py", hyperparameters=learned) == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hosts": 2}, "2 processes on 2 host(s)"),
        ({"launcher": {"process_count_per_node": 2}}, "2 processes on 1 host(s)"),
        ({"launcher": {"smddp": False}, "local": False}, "4 processes on 1 host(s)"),  # one for each GPU
        (
            {"hyperparameters": {"lora_rank": 0}},
            "lora_rank is 0, but adapters on a frozen base are what is trained",
        ),
        (
            {"hyperparameters": {"activation_checkpointing": True}},
            "unknown hyperparameter 'activation_checkpointing'",
        ),
    ],
)
def test_what_unsloth_would_not_do(changes, said):
    found = problems("04_grpo_unsloth", "train.py", **changes)
    assert any(said in problem for problem in found), found
