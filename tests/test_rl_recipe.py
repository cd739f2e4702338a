"""Recipes and hyperparameters: what they set, and that wrong ones are refused with the key and the cure."""

import dataclasses
import json

import pytest
from rl.recipe import JobArguments, RecipeError, parse_arguments, read_command_line, read_recipe
from trl import DPOConfig, GRPOConfig, TrlParser

TYPES = (JobArguments, GRPOConfig)
ON_CPU = {"use_cpu": True, "bf16": False}


@pytest.fixture
def parse(tmp_path):
    """Parses a recipe (mapping or YAML text) and a command line."""

    def run(recipe="", *arguments, types=TYPES):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            json.dumps({**ON_CPU, **recipe}) if isinstance(recipe, dict) else f"use_cpu: true\n{recipe}"
        )
        return parse_arguments(types, ["--config", str(path), *arguments])

    return run


def test_recipe_fills_both_and_leaves_the_rest_at_its_default(parse):
    job, config = parse(
        "rewards: [format]\nlearning_rate: 1e-5\nmax_steps: 7\nreward_weights: [0.5]\nbf16: no\n"
    )
    assert job == JobArguments(rewards=["format"])
    assert config.learning_rate == 1e-5  # which YAML 1.1 reads as text
    assert (config.max_steps, config.reward_weights, config.bf16) == (7, [0.5], False)
    assert config.num_generations == GRPOConfig(**ON_CPU).num_generations


def test_command_line_wins_and_lists_may_be_json(parse):
    recipe = {
        "rewards": ["format"],
        "max_steps": 7,
        "report_to": ["mlflow"],
        "eval_problems": 5,
        "run_name": "a",
    }
    arguments = ["--rewards", '["accuracy", "format"]', "--max_steps", "9", "--reward_weights=[1, -0.5]"]
    arguments += ["--report_to", "[]", "--eval-problems", "null", "--lr_scheduler_kwargs", '{"power": 2}']
    arguments += ["--log_completions", "--shuffle_dataset", "false", "--run_name=[odd] name"]
    job, config = parse(recipe, *arguments)
    assert (job.rewards, job.eval_problems) == (["accuracy", "format"], None)
    assert (config.max_steps, config.reward_weights, config.report_to) == (9, [1.0, -0.5], [])
    assert (config.lr_scheduler_kwargs, config.log_completions, config.shuffle_dataset) == (
        {"power": 2},
        True,
        False,
    )
    assert config.run_name == "[odd] name"


def test_lists_as_the_sdks_drivers_pass_them():
    from sagemaker.train.container_drivers.common.utils import hyperparameters_to_cli_args

    # In a job's hyperparameters.json every value is a JSON string.
    sent = {
        "rewards": ["accuracy", "format"],
        "max_steps": 3,
        "learning_rate": 1e-5,
        "use_cpu": True,
        "bf16": False,
    }
    sent |= {"eval_problems": None, "experiment": "größer als 'x'"}
    arguments = hyperparameters_to_cli_args({key: json.dumps(value) for key, value in sent.items()})
    job, config = parse_arguments(TYPES, arguments)
    assert (job.rewards, job.eval_problems, job.experiment) == (
        ["accuracy", "format"],
        None,
        "größer als 'x'",
    )
    assert (config.max_steps, config.learning_rate, config.use_cpu) == (3, 1e-5, True)


def test_same_as_trl_parser(parse, tmp_path):
    recipe = {
        "max_steps": 3,
        "learning_rate": 0.1,
        "rewards": ["format"],
        "loss_type": "grpo",
        "save_steps": 5,
    }
    ours = parse(recipe)
    theirs = TrlParser(TYPES).parse_args_and_config(["--config", str(tmp_path / "recipe.yaml")])
    assert ours[0] == theirs[0]
    assert ours[1].to_dict() == theirs[1].to_dict()


def test_other_trainers_configs_work(parse):
    job, config = parse(
        {"loss_type": ["sigmoid"], "beta": 0.2}, "--max_length", "64", types=(JobArguments, DPOConfig)
    )
    assert (config.loss_type, config.beta, config.max_length) == (["sigmoid"], 0.2, 64)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"learning_rat": 1}, "unknown recipe key 'learning_rat'; did you mean 'learning_rate'"),
        ({"env": {"A": "b"}}, "unknown recipe key 'env'"),
        ({"max_steps": 1.5}, "max_steps.*invalid int value: '1.5'"),
        ({"max_steps": "many"}, "max_steps.*'many'"),
        ({"max_steps": None}, "'max_steps' is null, but it needs a value"),
        ({"max_steps": True}, "'max_steps' is true: YAML reads"),
        ({"learning_rate": [1, 2]}, r"'learning_rate' is \[1, 2\], but it takes a single value"),
        ({"learning_rate": {"a": 1}}, "'learning_rate' is .* but it takes a single value"),
        ({"log_completions": "maybe"}, "log_completions.*maybe"),
        ({"save_strategy": "sometimes"}, "save_strategy.*'sometimes' .choose from"),
        ("save_strategy: no\n", "'save_strategy' is false: YAML reads yes, no, on and off"),
        ({"reward_weights": ["heavy"]}, "reward_weights.*'heavy'"),
        ({"rewards": ["acuracy"]}, "unknown reward 'acuracy'; did you mean 'accuracy'"),
        ({"dtype": "int8"}, "dtype: 'int8' is not one of"),
        ({"lora_rank": -1}, "lora_rank: -1 is too small"),
        ({"eval_samples": 0}, "eval_samples: 0 is too small; the least is 1"),
        ({"eval_problems": 0}, "eval_problems: 0 is too small"),
        ({"hub_token": "hf_abc"}, "'hub_token': a secret belongs in no recipe"),
        ("max_steps: 1\nmax_steps: 2\n", "'max_steps' stands there twice"),
        ("max_steps: [1\n", "not valid YAML.*line"),
    ],
)
def test_wrong_recipes_are_refused(parse, recipe, message):
    with pytest.raises(RecipeError, match=f"(?s){message}"):
        parse(recipe)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--learning_rat", "1"], "unknown hyperparameter 'learning_rat'; did you mean 'learning_rate'"),
        (["--learn", "1"], "unknown hyperparameter 'learn'"),  # no abbreviations
        (["--max_steps", "1", "2"], "max_steps"),
        (["stray"], "'stray' on the command line"),
        (["--rewards", '["accuracy", "for'], "unknown reward"),
        (["--hub_token", "hf_abc"], "hyperparameter 'hub_token'"),
    ],
)
def test_wrong_hyperparameters_are_refused(parse, arguments, message):
    arguments = arguments if arguments[0].startswith("--") else [*arguments, "--max_steps", "1"]
    with pytest.raises(RecipeError, match=message):
        parse_arguments(TYPES, [*arguments, "--use_cpu", "--bf16=false"])


def test_a_secret_is_not_repeated_in_the_refusal(parse):
    with pytest.raises(RecipeError) as refused:
        parse({"hub_token": "hf_abc"})
    assert "hf_abc" not in str(refused.value)


@pytest.mark.parametrize("content", [b"- a\n- b\n", b"just text", b"", b"\xff\xfe"])
def test_what_is_no_mapping_is_refused(content, tmp_path):
    (tmp_path / "recipe.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=r"recipe\.yaml"):
        read_recipe(tmp_path / "recipe.yaml")


def test_a_missing_recipe_names_those_there_are(tmp_path):
    (tmp_path / "tiny.yaml").write_text("max_steps: 1\n")
    with pytest.raises(RecipeError, match=r"no recipe .*small\.yaml.*tiny\.yaml"):
        read_recipe(tmp_path / "small.yaml")


def test_command_line_forms():
    line = ["--a", "1", "--b-c=x=y", "--d", "--e", "1", "-2", "--f", "null", "--g", "-3"]
    expected = {"a": "1", "b_c": "x=y", "d": True, "e": ["1", "-2"], "f": None, "g": "-3"}
    assert read_command_line(line) == expected


def test_every_field_has_help_and_no_name_of_a_trainers_config():
    names = {field.name for field in dataclasses.fields(JobArguments)}
    for config in (GRPOConfig, DPOConfig):
        assert not names & {field.name for field in dataclasses.fields(config)}
    assert all(len(field.metadata["help"]) > 20 for field in dataclasses.fields(JobArguments))


def test_help_lists_the_fields(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(TYPES, ["--help"])
    assert stopped.value.code == 0
    assert "--eval_problems" in capsys.readouterr().out
