"""Recipes and hyperparameters: what they set, and that wrong ones are refused with the key and the cure."""

import dataclasses
import json

import pytest
from job.arguments import (
    Arguments,
    EvaluationArguments,
    LoraArguments,
    ModelArguments,
    PairArguments,
    QuantizationArguments,
    RecipeError,
    RewardArguments,
    RewardModelArguments,
    RunArguments,
    Script,
)
from job.forms import FILES, form_problems
from job.recipe import parse_arguments, read_command_line, read_recipe, setting_problems
from trl import DPOConfig, GRPOConfig, TrlParser
from workshop.checks.signatures import CONFIGS, load_signature


@dataclasses.dataclass
class Everything(
    RunArguments,
    ModelArguments,
    LoraArguments,
    QuantizationArguments,
    RewardArguments,
    RewardModelArguments,
    EvaluationArguments,
):
    """What a script may read beside its trainer's config."""


GRPO = Script(Everything, "trl.GRPOConfig", shares_with=(PairArguments,))
ON_CPU = {"use_cpu": True, "bf16": False}


@pytest.fixture
def parse(tmp_path):
    """Parses a recipe (mapping or YAML text) and a command line."""

    def run(recipe="", *arguments, script=GRPO):
        path = tmp_path / "recipe.yaml"
        path.write_text(
            json.dumps({**ON_CPU, **recipe}) if isinstance(recipe, dict) else f"use_cpu: true\n{recipe}"
        )
        return parse_arguments(script, ["--config", str(path), *arguments])

    return run


def test_recipe_fills_both_and_leaves_the_rest_at_its_default(parse):
    job, config = parse(
        "rewards: [format]\nlearning_rate: 1e-5\nmax_steps: 7\nreward_weights: [0.5]\nbf16: no\n"
    )
    assert job == Everything(rewards=["format"])
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
    arguments = ["--rewards", '["accuracy", "format"]', "--max_steps", "9", "--reward_weights=[1, 0.5]"]
    arguments += ["--report_to", "[]", "--eval-problems", "null", "--lr_scheduler_kwargs", '{"power": 2}']
    arguments += ["--log_completions", "--shuffle_dataset", "false", "--run_name=[odd] name"]
    job, config = parse(recipe, *arguments)
    assert (job.rewards, job.eval_problems) == (["accuracy", "format"], None)
    assert (config.max_steps, config.reward_weights, config.report_to) == (9, [1.0, 0.5], [])
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
    job, config = parse_arguments(GRPO, arguments)
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
    theirs = TrlParser((Everything, GRPOConfig)).parse_args_and_config(
        ["--config", str(tmp_path / "recipe.yaml")]
    )
    assert ours[0] == theirs[0]
    assert ours[1].to_dict() == theirs[1].to_dict()


def test_other_trainers_configs_work(parse):
    dpo = Script(Everything, "trl.DPOConfig")
    job, config = parse({"loss_type": ["sigmoid"], "beta": 0.2}, "--max_length", "64", script=dpo)
    assert (config.loss_type, config.beta, config.max_length) == (["sigmoid"], 0.2, 64)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"learning_rat": 1}, "unknown recipe key 'learning_rat'; did you mean 'learning_rate'"),
        ({"env": {"A": "b"}}, "unknown recipe key 'env'"),
        ({"max_steps": 1.5}, "recipe key 'max_steps' must be int, not 1.5"),
        ({"max_steps": "many"}, "'max_steps' must be int, not \"many\""),
        ({"max_steps": None}, "'max_steps' must be int, not null; leave the line out to get the default"),
        ({"max_steps": True}, "'max_steps' must be int, not true"),
        ({"learning_rate": [1, 2]}, r"'learning_rate' must be float, not \[1, 2\]"),
        ({"learning_rate": {"a": 1}}, "'learning_rate' must be float, not "),
        ({"log_completions": "maybe"}, "'log_completions' must be bool, not \"maybe\""),
        ({"save_strategy": "sometimes"}, "'save_strategy' must be one of no, steps, epoch, not"),
        ("save_strategy: no\n", "'save_strategy' must be str, not false; YAML reads yes, no, on and off"),
        ({"reward_weights": ["heavy"]}, "'reward_weights' must be list.float., not .\"heavy\""),
        ({"rewards": []}, "nothing to learn from: name at least one of accuracy"),
        ({"dtype": "int8"}, "'dtype' must be one of float32, bfloat16, float16, not \"int8\""),
        ({"lora_rank": -1}, "'lora_rank' is -1: it must be from 0 to 4096"),
        ({"eval_samples": 0}, "'eval_samples' is 0: it must be 1 or more"),
        ({"eval_problems": 0}, "'eval_problems' is 0: it must be 1 or more"),
        ({"quantization": "nf4"}, "a 4-bit base is frozen, so it needs adapters: set lora_rank too"),
        ({"quantization": "int8", "lora_rank": 8}, "'quantization' must be nf4"),
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
        (["--eval_samples", "0"], "hyperparameter 'eval_samples' is 0: it must be 1 or more"),
        (["stray"], "'stray' on the command line"),
        (["--rewards", '["accuracy", "for'], "'rewards' begins like JSON, which it is not"),
        (["--hub_token", "hf_abc"], "hyperparameter 'hub_token'"),
        (["--optim_args", "{"], "'optim_args' must be written as name=value,name=value, not"),
        (["--optim_args", "beta3"], "'optim_args' must be written as name=value"),
        (["--fsdp", "half"], "'fsdp' must be of full_shard, .*, not .half"),
        (["--fsdp", "hybrid_shard"], "which FSDP1 alone has"),
        (["--fsdp_config", '{"version": 3}'], "'fsdp_config': version must be one of 1, 2, not 3"),
        (
            ["--fsdp_config", '{"state_dict_type": "WHOLE"}'],
            "state_dict_type must be one of SHARDED_STATE_DICT, FULL",
        ),
        (
            ["--fsdp_config", '{"activation_checkpointing": "perhaps"}'],
            "activation_checkpointing must be true or false",
        ),
        (["--generation_kwargs", '{"top_p": 5}'], "'generation_kwargs': top_p is 5: it must be above 0"),
        (["--accelerator_config", '{"nonsense": 1}'], "'accelerator_config' must be one of split_batches, "),
    ],
)
def test_wrong_hyperparameters_are_refused(parse, arguments, message):
    arguments = arguments if arguments[0].startswith("--") else [*arguments, "--max_steps", "1"]
    with pytest.raises(RecipeError, match=message):
        parse_arguments(GRPO, [*arguments, "--use_cpu", "--bf16=false"])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss_type": []}, "'loss_type' names no loss"),
        ({"loss_weights": [0.0]}, "'loss_weights' is 0 throughout"),
        ({"loss_weights": [-1, 1]}, "'loss_weights' is -1"),
        ({"loss_weights": [1.0, 1.0]}, "'loss_weights' has 2 numbers, and loss_type has 1 losses"),
        ({"loss_type": "[\"sigmoid\", \"sft\"]", "loss_weights": "[1]"}, "has 1 numbers, and loss_type has 2 losses"),
        ({"loss_type": ["sigmoid", "sft"], "loss_weights": [1, 0.5]}, None),
    ],
)  # fmt: skip
def test_losses_of_dpo_and_their_weights(settings, message):
    reads = Script(Arguments, "trl.DPOConfig").reads(load_signature)
    found = "\n".join(setting_problems({"loss_type": ["sigmoid"]}, settings, reads, {}))
    assert message in found if message else found == ""


@pytest.mark.parametrize("config", CONFIGS)
def test_a_mapping_of_any_config_is_never_another_text(config):
    """Which TRL and transformers would keep for a file's name, or fail to read without saying of what."""
    reads = Script(Arguments, config).reads(load_signature)
    mappings = {key for key, setting in reads.items() if "dict" in setting.kinds} - set(FILES)
    assert {"lr_scheduler_kwargs", "fsdp_config", "gradient_checkpointing_kwargs"} <= mappings
    for key in mappings:
        for text in ("{", "words", "[1]", '{"a": ' * 1000):
            (problem,) = setting_problems({}, {key: text}, {key: reads[key]}, {})
            assert problem.startswith(f"hyperparameter '{key}' ")
    right = {
        "lr_scheduler_kwargs": '{"power": 2}',
        "fsdp_config": '{"version": 2}',
        "fsdp": "full_shard auto_wrap",
    }
    assert setting_problems({}, right, reads, {}) == []


def test_no_secret_is_none_to_refuse(parse):
    parse({"hub_token": None})


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
    fields = [*dataclasses.fields(Everything), *dataclasses.fields(PairArguments)]
    for config in (GRPOConfig, DPOConfig):
        assert not {field.name for field in fields} & {field.name for field in dataclasses.fields(config)}
    assert all(len(field.metadata["help"]) > 20 for field in fields)


def test_all_problems_are_named_at_once(parse):
    with pytest.raises(RecipeError) as refused:
        parse({"learning_rat": 1, "max_steps": "many"}, "--lora_rank", "-1")
    assert [line.split("'")[1] for line in str(refused.value).splitlines()] == [
        "learning_rat",
        "max_steps",
        "lora_rank",
    ]


def test_a_recipe_may_hold_what_other_scripts_read_but_a_hyperparameter_may_not(parse):
    job, _ = parse({"pair_samples": 8})
    assert not hasattr(job, "pair_samples")
    with pytest.raises(RecipeError, match="'pair_samples' is for another script of this folder"):
        parse("", "--pair_samples", "8")


def test_a_script_without_a_trainer_takes_no_key_of_a_config(tmp_path):
    nothing = Script(Arguments, shares_with=("trl.GRPOConfig",))
    (tmp_path / "recipe.yaml").write_text("max_steps: 3\n")
    assert parse_arguments(nothing, ["--config", str(tmp_path / "recipe.yaml")]) == (Arguments(), None)
    with pytest.raises(RecipeError, match="unknown hyperparameter 'seeds'"):
        parse_arguments(nothing, ["--seeds", "1"])


@pytest.mark.parametrize("variables", [{"WORLD_SIZE": "2"}, {"WORLD_SIZE": "4", "SM_HOST_COUNT": "2"}])
def test_a_script_for_one_process_refuses_to_run_as_several(monkeypatch, variables):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RecipeError, match="leave distributed= out and set instance_count=1"):
        parse_arguments(Script(Arguments, most_processes=1), [])
    parse_arguments(Script(Arguments), [])


def test_help_lists_the_fields(capsys):
    with pytest.raises(SystemExit) as stopped:
        parse_arguments(GRPO, ["--help"])
    assert stopped.value.code == 0
    assert "--eval_problems" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "refused"),
    [
        ({}, True),
        ({"use_vllm": False}, False),
        ({"quantization": None}, False),
        ({"quantization": "null"}, False),
        ({"fsdp": "null"}, False),
        ({"fsdp": None}, False),
    ],
)
def test_a_sharded_base_in_4_bits_is_not_asked_to_generate_by_vllm(change, refused):
    settings = {"fsdp": "full_shard", "quantization": "nf4", "use_vllm": True, "lora_rank": 16} | change
    assert [key for key, _ in form_problems(settings)] == ["use_vllm"] * refused
