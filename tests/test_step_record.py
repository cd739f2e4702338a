"""Recorded optimizer steps (02's step_record.py): what they hold, and that training does not notice."""

import importlib.util
import json
import sys
from types import ModuleType

import numpy as np
import pytest
from harness import ROOT, ScriptJob
from job.arguments import RecipeError
from lesson.by_hand import read_steps
from lesson.by_hand_comparison import compare
from rl.tasks import make_splits, write_splits

SCRIPTS = ROOT / "02_grpo_trl_accelerate" / "scripts"
# Two steps share a generation, so that the second is off-policy; it moves far enough to be clipped.
FEW = {
    "max_steps": 3,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "steps_per_generation": 2,
    "beta": 0.02,
    "max_completion_length": 48,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "save_steps": 3,
    "eval_problems": 4,
    "eval_samples": 1,
    "eval_max_new_tokens": 8,
    "report_to": "none",
}


@pytest.fixture(scope="module")
def step_record() -> ModuleType:
    """The script's module, which stands beside others whose names several modules have."""
    spec = importlib.util.spec_from_file_location("step_record", SCRIPTS / "step_record.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def new_job(tmp_path_factory):
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), tmp_path_factory.mktemp("data"))
    return lambda: ScriptJob(SCRIPTS / "train.py", tmp_path_factory.mktemp("job"), data, FEW, timeout=240)


@pytest.fixture(scope="module")
def recorded(new_job) -> ScriptJob:
    return new_job().run(record_steps=[1, 2, 3])


@pytest.mark.job
@pytest.mark.timeout(500)
def test_a_run_with_the_record_is_the_run_without_it_bit_by_bit(recorded, new_job):
    plain = new_job().run()
    assert not (plain.output / "steps").exists()
    assert plain.history() == recorded.history()
    assert plain.weights() == recorded.weights()
    assert plain.output_json("summary.json")["trainer"] == "trl.GRPOTrainer"
    assert recorded.output_json("summary.json")["trainer"] == "trl.GRPOTrainer"
    assert any(logs["clip_ratio/region_mean"] > 0 for logs in recorded.history()), "nothing was off-policy"


@pytest.mark.job
def test_a_step_holds_what_the_trainer_had_and_logged(recorded):
    first, second, third = read_steps(recorded.output)
    assert [step.number for step in (first, second, third)] == [1, 2, 3]
    for step, logs in zip((first, second, third), recorded.history(), strict=True):
        assert {name: value for name, value in step.logged.items() if name != "step_time"} == {
            name: value for name, value in logs.items() if name != "step"
        }
        assert step.mask.shape == step.policy.shape == step.reference.shape == step.entropy.shape
        assert step.policy.dtype == np.float32
        assert [len(texts) for texts in step.tokens] == step.mask.sum(axis=1).tolist()
        for texts, position in zip(step.tokens, step.position, strict=True):
            assert "".join(texts).replace("<|im_end|>", "") == step.completions[position]
        assert step.mask.sum(axis=1).tolist() == step.lengths[step.position].tolist()
    # Two steps deal a generation of 16 out among them.
    assert sorted([*first.position, *second.position]) == list(range(16))
    assert first.completions == second.completions != third.completions
    assert len(set(first.problems[:4])) == 1 and len(set(first.problems)) == 4
    assert first.group.tolist() == [position // 4 for position in first.position]
    # A generation's first step has the policy that sampled; the next one has not. The reference is the base model.
    assert np.array_equal(first.policy, first.sampler) and np.array_equal(first.policy, first.reference)
    assert not np.array_equal(second.policy, second.sampler)
    assert np.array_equal(second.sampler, second.reference)
    assert not np.array_equal(third.sampler, third.reference)


@pytest.mark.job
@pytest.mark.timeout(300)
def test_two_processes_that_accumulate_write_one_record(new_job):
    job = new_job().run(
        processes=2,
        record_steps=[2, 3],
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        steps_per_generation=4,
    )
    steps = read_steps(job.output)
    assert [step.number for step in steps] == [2, 3]
    for step in steps:
        assert step.process.tolist() == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
        assert step.micro_batch.tolist() == [0] * 8 + [1] * 8
        # A process shuffles its own completions: those of one half of the groups.
        assert (step.position // 16 == step.process).all()
        assert all(one.equal for one in compare(step)), compare(step)
    assert np.any(np.abs(steps[0].policy - steps[0].sampler) > 0.01)


@pytest.mark.job
def test_what_cannot_be_worked_out_is_refused_before_anything_is_computed(new_job):
    job = new_job().run(record_steps=[1, 3], logging_steps=2, fails=True)
    reason = job.failure.read_text()
    assert reason.startswith("RecipeError: record_steps: ")
    assert "set logging_steps to 1, not 2" in reason
    assert "[evaluation]" not in job.log
    job = new_job().run(record_steps=[1, 4], fails=True)
    assert "'record_steps' names step 4, and training ends at max_steps, 3" in job.failure.read_text()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"logging_steps": 5}, "set logging_steps to 1"),
        ({"gradient_accumulation_steps": 2, "steps_per_generation": 3}, "from one generation"),
        (
            {"gradient_accumulation_steps": 4, "steps_per_generation": 2},
            "a multiple of gradient_accumulation_steps",
        ),
    ],
)
def test_each_reason_is_named(step_record, tmp_path, settings, said):
    from trl import GRPOConfig

    given = {"logging_steps": 1, "max_steps": 3, "num_generations": 4, **settings}
    config = GRPOConfig(output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", **given)
    with pytest.raises(RecipeError, match=said):
        step_record.recording_trainer([1, 2], config)


def test_a_step_before_the_first_is_refused():
    spec = importlib.util.spec_from_file_location("arguments_of_02", SCRIPTS / "arguments.py")
    assert spec and spec.loader
    arguments = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = arguments  # dataclasses look their module up
    spec.loader.exec_module(arguments)
    with pytest.raises(RecipeError, match="the first step is 1, not 0"):
        arguments.TrainArguments(record_steps=[0, 1])
    assert json.dumps(arguments.TrainArguments().record_steps) == "[]"
