"""GRPO worked out by hand (02's lesson/by_hand.py): whole steps beside those of the real trainer."""

import dataclasses
import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from datasets import Dataset
from harness import ROOT, ScriptJob
from job.models import load_base, load_tokenizer
from lesson.by_hand import (
    Step,
    advantages,
    clipped,
    loss,
    ratio,
    read_step,
    read_steps,
    token_losses,
    token_weights,
)
from lesson.by_hand_comparison import Comparison, compare
from lesson.by_hand_views import comparison_table, group_table, plot_clipping, token_table, weights_table
from rl.rewards import get_rewards
from rl.tasks import DataError, make_splits, write_splits
from trl import GRPOConfig

SCRIPTS = ROOT / "02_grpo_trl_accelerate" / "scripts"
CLIPPING = {f"clip_ratio/{name}" for name in ("low_mean", "high_mean", "region_mean", "low_min", "high_max")}
REWARDS = {"reward", "reward_std", "frac_reward_zero_std"} | {
    f"rewards/{name}/{of}" for name in ("accuracy", "format") for of in ("mean", "std")
}


# --- Steps of the real trainer ---


@pytest.fixture(scope="module")
def step_record():
    spec = importlib.util.spec_from_file_location("step_record", SCRIPTS / "step_record.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.fixture(scope="module")
def record(step_record, tmp_path_factory):
    """record(**recipe keys): the steps of a short training in this process."""
    rows = make_splits("chain_sum", {"train": 64})["train"]

    def train(trainer_class=step_record.RecordingGRPOTrainer, **settings) -> list[Step]:
        folder = tmp_path_factory.mktemp("training")
        given = {
            "max_steps": 4,
            "per_device_train_batch_size": 8,
            "num_generations": 4,
            "steps_per_generation": 2,
            "max_completion_length": 48,
            "learning_rate": 1e-3,
            "logging_steps": 1,
            "reward_weights": [1.0, 0.25],
            "seed": 42,
            **settings,
        }
        config = GRPOConfig(
            output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", save_strategy="no", **given
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setenv("SM_OUTPUT_DATA_DIR", str(folder))
            trainer = trainer_class(
                record_steps=range(1, 9),
                model=load_base("asset:tiny")[0],
                reward_funcs=get_rewards(["accuracy", "format"]),
                args=config,
                train_dataset=Dataset.from_list(rows),
                processing_class=load_tokenizer("asset:tiny"),
            )
            trainer.train()
        return read_steps(folder)

    return train


def names(step: Step) -> set[str]:
    """What is compared for the step, and is all equal."""
    found = compare(step)
    assert all(one.equal for one in found), [one for one in found if not one.equal]
    return {one.name for one in found[1:]}  # the first are the advantages


@pytest.mark.parametrize(
    ("settings", "also"),
    [
        ({"loss_type": "grpo", "beta": 0.04}, {"kl"} | CLIPPING),
        ({"loss_type": "dapo", "epsilon": 0.1, "epsilon_high": 0.28, "num_iterations": 2}, CLIPPING),
        ({"loss_type": "dr_grpo", "scale_rewards": "none"}, CLIPPING),
        ({"loss_type": "dapo", "beta": 0.02, "use_bias_correction_kl": False}, {"kl"} | CLIPPING),
        ({"loss_type": "dapo", "mask_truncated_completions": True, "scale_rewards": "batch"}, CLIPPING),
        ({"loss_type": "dapo", "gradient_accumulation_steps": 2, "steps_per_generation": 4}, CLIPPING),
        (
            {
                "loss_type": "grpo",
                "importance_sampling_level": "sequence",
                "epsilon": 3e-4,
                "epsilon_high": 4e-4,
            },
            CLIPPING,
        ),
        (
            {"loss_type": "dapo", "importance_sampling_level": "sequence", "beta": 0.02, "epsilon": 0.01},
            {"kl"} | CLIPPING,
        ),
        ({"loss_type": "cispo", "epsilon_high": 1.02, "beta": 0.02}, {"kl", "cispo_clip_ratio"}),
    ],
    ids=[
        "grpo",
        "two-iterations",
        "dr_grpo",
        "plain-kl",
        "masked",
        "accumulated",
        "gspo",
        "sequence-kl",
        "cispo",
    ],
)
def test_every_loss_off_policy_is_the_trainers(record, settings, also):
    steps = record(**settings)
    assert [step.number for step in steps] == [1, 2, 3, 4]
    generated = [step for step in steps if "reward" in step.logged]
    for step in steps:
        assert names(step) == {"loss", "entropy"} | also | (REWARDS if step in generated else set())
    # As many generations as it should be, and the steps after each are really off-policy.
    assert len(generated) == (1 if "num_iterations" in settings else 2)
    off_policy = [step for step in steps if step not in generated]
    assert all(np.abs(ratio(step) - 1).max() > 1e-3 for step in off_policy)
    assert any(mask.any() for step in off_policy for mask in clipped(step)), "nothing was clipped"
    assert not any(mask.any() for mask in clipped(generated[0]))


def test_an_engines_own_rounding_is_weighed_in(record, step_record):
    """What vLLM adds to the loss, without vLLM: TRL multiplies by a ratio that comes with the completions."""

    class WithRatio(step_record.RecordingGRPOTrainer):
        def _generate_and_score_completions(self, inputs):
            batch = super()._generate_and_score_completions(inputs)
            with torch.random.fork_rng():
                batch["importance_sampling_ratio"] = torch.rand(batch["completion_ids"].shape) + 0.5
            return batch

        def _compute_loss(self, model, inputs):
            self.use_vllm = True
            try:
                return super()._compute_loss(model, inputs)
            finally:
                self.use_vllm = False

    for step in record(WithRatio, beta=0.02):
        assert {"loss", "kl"} <= names(step)
        without = dataclasses.replace(step, engine_ratio=None)
        assert abs(loss(without) - step.logged["loss"]) > 1e-3


@pytest.mark.job
@pytest.mark.timeout(300)
def test_the_script_on_policy_is_worked_out_from_its_outputs(tmp_path):
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), tmp_path / "data")
    few = {
        "max_steps": 3,
        "per_device_train_batch_size": 16,
        "loss_type": "grpo",
        "warmup_steps": 0,
        "eval_problems": 4,
        "eval_samples": 1,
        "eval_max_new_tokens": 8,
        "report_to": "none",
    }
    job = ScriptJob(SCRIPTS / "train.py", tmp_path / "job", data, few, timeout=240)
    steps = read_steps(job.run(record_steps=[1, 3]).output)
    assert [step.number for step in steps] == [1, 3]
    history = {logs["step"]: logs for logs in job.history()}
    for step in steps:
        assert names(step) == {"loss", "entropy"} | CLIPPING | REWARDS
        assert loss(step) == pytest.approx(history[step.number]["loss"], abs=1e-6)
        assert np.array_equal(step.policy, step.sampler) and (ratio(step) == 1).all()
        # Advantages of a group add up to 0, and each completion weighs the same: the number says nothing about learning.
        assert loss(step) == pytest.approx(0, abs=1e-6) and history[step.number]["grad_norm"] > 0.01


# --- What the comparison and the views say ---


@pytest.fixture(scope="module")
def steps(record) -> list[Step]:
    """Four off-policy steps, of which the first and the third generated."""
    return record(beta=0.02)


def test_a_number_that_is_not_the_trainers_is_found(steps):
    step = steps[1]
    for changes in (
        {"policy": step.policy + 1e-3},
        {"rewards": step.rewards[::-1]},
        {"lengths": step.lengths + 1},
        {"settings": step.settings | {"epsilon_low": 0.9, "epsilon_high": 0.9}},
        {"settings": step.settings | {"beta": 0.03}},
        {"settings": step.settings | {"loss_type": "grpo"}},
    ):
        wrong = dataclasses.replace(step, **changes)
        assert not all(one.equal for one in compare(wrong)), changes.keys()
        assert "NO, " in repr(comparison_table(wrong))


def test_equal_is_to_what_float32_keeps():
    assert Comparison("", 0.1234567, 0.1234566, 0.0).equal and not Comparison("", 0.12346, 0.12345, 0.0).equal
    assert Comparison("", 3e-8, -2e-8, 0.5).equal, "a loss that has cancelled"
    assert not Comparison("", 3e-8, -2e-8, 0.0).equal


def test_only_tokens_that_have_stopped_counting_have_no_gradient(steps):
    step = max(steps, key=lambda step: sum(mask.sum() for mask in clipped(step)))
    exact = {name: getattr(step, name).astype(float) for name in ("policy", "sampler")}
    surrogate = dataclasses.replace(step, **exact, settings=step.settings | {"beta": 0.0})
    up, down = (dataclasses.replace(surrogate, policy=exact["policy"] + move) for move in (1e-6, -1e-6))
    gradient = (token_losses(up) - token_losses(down)) / 2e-6
    below, above = clipped(surrogate)
    stopped = (below | above) & step.mask
    assert stopped.any() and (gradient[stopped] == 0).all()
    # Of the others it is - A r.
    expected = -(advantages(step)[step.position][:, None] * ratio(surrogate))
    assert gradient[step.mask & ~stopped] == pytest.approx(expected[step.mask & ~stopped], rel=1e-4, abs=1e-8)


def test_the_shares_of_tokens_and_completions_add_up_to_the_loss(steps):
    step = steps[1]
    shares = token_weights(step) * token_losses(step)
    assert shares.sum() == pytest.approx(step.logged["loss"], rel=1e-5)
    text = repr(token_table(step, 3))
    assert f"{shares[3].sum():+.2e}" == text.split()[-1]
    assert len(text.splitlines()) == 2 + len(step.tokens[3]) + 1
    shortened = repr(token_table(step, 3, most=2))
    assert f"{len(step.tokens[3]) - 2} tokens more" in shortened and len(shortened.splitlines()) == 5


def test_the_views_show_what_they_should(steps):
    text = repr(comparison_table(steps[1]))
    assert "9 of 9 numbers are equal" in text and text.count("yes") == 9
    assert "<table>" in comparison_table(steps[1])._repr_html_()
    group = repr(group_table(steps[1], 1))
    assert group.count("another step") == 4 - (steps[1].group == 1).sum()
    assert "accuracy x 1" in group and "format x 0.25" in group
    plot = plot_clipping(steps)
    below, above = clipped(steps[1])
    stopped = ((below | above) & steps[1].mask).sum()
    assert f"step 2 {stopped} of {steps[1].mask.sum()} stopped" in repr(plot)
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_only_grpo_weighs_tokens_by_their_completions_length(steps):
    step = next(step for step in steps if len(set(step.mask.sum(axis=1))) > 1)
    lengths = step.mask.sum(axis=1)
    shortest, longest = lengths[lengths > 0].min(), lengths.max()
    header, *rows = repr(weights_table(step)).splitlines()[-4:]
    assert f"({shortest} tokens)" in header and f"({longest} tokens)" in header
    found = {
        name: [float(value) for value in row.split()[-3:]]
        for name, row in zip(("GRPO", "DAPO", "Dr."), rows, strict=True)
    }
    assert found["GRPO"][0] / found["GRPO"][1] == pytest.approx(longest / shortest, rel=0.05)
    assert found["DAPO"][:2] == [1.0, 1.0] and found["Dr."][0] == found["Dr."][1]
    assert found["DAPO"][2] == pytest.approx(step.logged["loss"], abs=1e-5), "the recipe's own"


def test_what_does_not_exist_is_said(steps, tmp_path):
    with pytest.raises(DataError, match="groups 0 to 3, and no 4"):
        group_table(steps[0], 4)
    with pytest.raises(DataError, match="completions 0 to 7, and no 8"):
        token_table(steps[0], 8)
    with pytest.raises(DataError, match=r"start it with record_steps=\[1, 2\]"):
        read_steps(tmp_path)
    (tmp_path / "step_0002.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="no recorded step .*there: step_0002.npz"):
        read_step(tmp_path / "step_0001.npz")
    with pytest.raises(DataError, match="not a step written by step_record.py"):
        read_step(tmp_path / "step_0002.npz")
    np.savez(tmp_path / "other.npz", texts=np.array(json.dumps({"number": 1})))
    with pytest.raises(DataError, match="not a step written by step_record.py"):
        read_step(tmp_path / "other.npz")


@pytest.mark.parametrize(
    "setting",
    [{"loss_type": "sapo"}, {"delta": 4.0}, {"off_policy_mask_threshold": 0.5}, {"entropy_coef": 0.1}],
)
def test_a_loss_that_is_not_worked_out_is_refused_by_name(steps, setting):
    step = dataclasses.replace(steps[0], settings=steps[0].settings | setting)
    ((key, value),) = setting.items()
    with pytest.raises(DataError, match=f"not worked out by hand: {key}: {value}"):
        comparison_table(step)
