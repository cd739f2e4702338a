"""What is said of a recipe for verl before its job begins: values that cannot be, where the model lies, and preflight."""

import boto3
import pytest
from job.arguments import RecipeError
from launchers import RayCluster
from lesson.verl_checks import check_verl_recipe
from rl.tasks import make_splits, write_splits
from sagemaker.core.training.configs import InputData, SourceCode
from verl_recipe import check_source, read_verl_recipe, recipe_problems
from verl_recipes import ACTOR, MODULE, RECIPES, ROLLOUT
from workshop.checks.preflight import PreflightError, preflight
from workshop.session.staging import stage_source

# Values that no check can reckon with, or that the job would replace: refused alone, before all else
USELESS = [
    (f"{ACTOR}.ppo_mini_batch_size=0", "ppo_mini_batch_size is 0: write a whole number, 1 or more"),
    (f"{ROLLOUT}.tensor_model_parallel_size=0", "tensor_model_parallel_size is 0"),
    (f"{ROLLOUT}.tensor_model_parallel_size=null", "tensor_model_parallel_size is None"),
    ("data.train_batch_size=eight", "train_batch_size is 'eight': write a whole number"),
    (f"{ROLLOUT}.n=true", "rollout.n is True"),
    (f"{ROLLOUT}.gpu_memory_utilization=90%", "gpu_memory_utilization is '90%': write a number"),
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
    (f"{ROLLOUT}.multi_turn.max_parallel_calls=0", "max_parallel_calls is 0"),
    (f"{ACTOR}.ppo_epochs=0", "ppo_epochs is 0"),
    (f"{ACTOR}.optim.lr=0", "optim.lr is 0: it must be above 0 and at most 1"),
    (f"{ACTOR}.optim.lr=fast", "optim.lr is 'fast': write a number"),
    (f"{ACTOR}.optim.lr=.nan", "optim.lr is nan, which is no number to compute with"),
    (f"{ACTOR}.optim.weight_decay=-0.1", "weight_decay is -0.1: it must be 0 or more"),
    (f"{ACTOR}.optim.clip_grad=0", "clip_grad is 0"),
    (f"{ACTOR}.optim.lr_warmup_steps_ratio=3", "lr_warmup_steps_ratio is 3"),
    (f"{ACTOR}.clip_ratio=-0.2", "clip_ratio is -0.2: it must be above 0"),
    (f"{ACTOR}.clip_ratio_c=0.5", "clip_ratio_c is 0.5: it must be above 1"),
    (f"{ACTOR}.kl_loss_coef=-1", "kl_loss_coef is -1"),
    (f"{ACTOR}.entropy_coeff=true", "entropy_coeff is True: write a number"),
    ("algorithm.gamma=2", "gamma is 2: it must be from 0 to 1"),
    (f"{ROLLOUT}.temperature=0", "temperature is 0: it must be above 0"),
    (f"{ROLLOUT}.top_p=5", "top_p is 5"),
    (f"{ROLLOUT}.top_k=-2", "top_k is -2"),
]


def test_numbers_that_yaml_reads_as_text_are_numbers(tmp_path):
    (tmp_path / "recipe.yaml").write_text("actor: {lr: 1e-4, betas: [9e-1, 1], name: e5}\n")
    overrides = ["actor.clip=2.5E-1", "job.reward_weights=[1, 2e-1]"]
    job, settings = read_verl_recipe(tmp_path / "recipe.yaml", overrides)
    assert job.reward_weights == [1, 0.2]
    assert settings == {"actor": {"lr": 1e-4, "betas": [0.9, 1], "name": "e5", "clip": 0.25}}


@pytest.mark.parametrize(
    ("steps", "most", "said"),
    [
        (2, -1, "2 steps of 8 of the 20 prompts: 16 of them are used, once each"),
        (2, 16, "2 steps of 8 of the 16 prompts: once through them"),
        (3, 16, "3 steps of 8 of the 16 prompts: 1.5 times through them"),
        (3, -1, "3 steps of 8 of the 20 prompts: 1.2 times through them"),
    ],
)
def test_preflight_says_how_many_of_the_prompts_are_used(make_trainer, tmp_path, steps, most, said):
    folders = write_splits(make_splits("chain_sum", {"train": 20, "test": 4}), tmp_path / "data")
    overrides = [f"trainer.total_training_steps={steps}", f"data.train_max_samples={most}"]
    trainer = make_trainer(
        "",
        source_code=SourceCode(
            source_dir=str(stage_source(MODULE, build=tmp_path)),
            entry_script="train.py",
            requirements="requirements.txt",
        ),
        distributed=RayCluster(process_count_per_node=2),
        hyperparameters={"config": "recipes/tiny.yaml", "overrides": overrides},
    )
    channels = [InputData(channel_name=split, data_source=str(path)) for split, path in folders.items()]
    assert said in str(preflight(trainer, channels, recipe=check_verl_recipe))


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
        ("job.eval_samples=0", "job.eval_samples is 0: it must be 1 or more"),
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

    assert "2 steps of 8 of the 8 prompts: 2 times through them" in str(
        check("trainer.total_training_steps=2")
    )
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
    multi_turn = f"{ROLLOUT}.multi_turn"
    for recipe, key in (("tools", "function_tool_path"), ("till", "tool_config_path")):
        with pytest.raises(PreflightError, match=rf"multi_turn\.{key}: there is no lost in the source"):
            check(f"{multi_turn}.{key}=lost", config=f"recipes/{recipe}.yaml")
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
