"""Dollars and hours: before a job, from its request; and after it, from the seconds that SageMaker bills."""

from pathlib import Path

import pytest
from job.recipe import read_recipe
from job_requests import module_request
from sagemaker.core.resources import TrainingJob
from sagemaker.core.shapes import ResourceConfig, WarmPoolStatus
from workshop.checks.cost import check_cost, check_warm_pool, job_cost
from workshop.checks.duration import PROMPT_TOKENS, Duration, check_duration, in_words, job_duration
from workshop.checks.machine_checks import check_numbers
from workshop.checks.memory import SHAPES
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, JobRequest

ROOT = Path(__file__).resolve().parents[1]


def job_of(
    module: str, recipe: str, instance_type: str, script: str = "train.py", **changes
) -> tuple[JobRequest, dict]:
    """A request on AWS and its settings; `changes` in capitals are the request's, the others the recipe's."""
    folder = next(ROOT.glob(f"{module}_*")) / "scripts"
    of_request = {key.lower(): changes.pop(key) for key in list(changes) if key.isupper()}
    settings = read_recipe(folder / "recipes" / f"{recipe}.yaml") | changes
    launcher = {} if module == "04" else {"process_count_per_node": None}
    request = module_request(module, instance_type, script, **{"launcher": launcher, **of_request})
    return request, settings


@pytest.mark.parametrize(
    ("module", "recipe", "instance_type", "hours"),
    [
        ("02", "full", "ml.g6e.12xlarge", (2, 3.5)),
        ("03", "full", "ml.g6e.12xlarge", (4.5, 7)),
        ("04", "full", "ml.g6e.2xlarge", (6.5, 9.5)),
    ],
)
def test_the_time_of_the_large_recipes(module, recipe, instance_type, hours):
    found = job_duration(*job_of(module, recipe, instance_type))
    assert found and hours[0] < found.total / 3600 < hours[1]
    assert str(found).startswith("about ") and "by arithmetic, not measured" in str(found)


def test_pairs_are_made_faster_in_larger_batches():
    few, many = (
        job_duration(*job_of("01", "small", "ml.g6.xlarge", "pairs_sampled.py", pair_batch_size=batch)) for batch in (50, 500)
    )  # fmt: skip
    assert few and many and few.steps == many.steps == 0
    assert few.total > 3600 > 2 * many.total


def test_an_evaluation_that_the_channel_base_brings_takes_no_time():
    made = job_duration(*job_of("02", "full", "ml.g6e.12xlarge"))
    brought = job_duration(
        *job_of("02", "full", "ml.g6e.12xlarge", CHANNELS=[("base", "s3://bucket/evaluation_before.json")])
    )
    assert made and brought and brought.evaluation == made.evaluation / 2 > 0


def test_more_gpus_more_hosts_and_fewer_steps_take_less_time():
    base = job_duration(*job_of("03", "full", "ml.g6e.12xlarge"))
    two = job_duration(*job_of("03", "full", "ml.g6e.12xlarge", HOSTS=2, gradient_accumulation_steps=4))
    short = job_duration(*job_of("03", "full", "ml.g6e.12xlarge", max_steps=40))
    assert base and two and short
    assert two.learn < base.learn and two.evaluation < base.evaluation
    assert short.total - short.start - short.evaluation == pytest.approx(
        0.1 * 400 * (base.generate + base.learn)
    )


@pytest.mark.parametrize(
    ("changes", "passes"),
    [
        ({"lora_rank": 16}, 2),  # forward, and the gradients of what flows through frozen weights
        ({"lora_rank": 0}, 3),  # and those of the weights themselves
        ({"lora_rank": 0, "gradient_checkpointing": True}, 4),  # and forward once more
    ],
)
def test_learning_takes_two_operations_a_parameter_token_and_pass(changes, passes):
    plain = {"max_steps": 10, "gradient_checkpointing": False, "use_vllm": False, "quantization": None}
    asked = {"NUMBERS": {}, "LAUNCHER": {}, **plain}
    one = job_duration(*job_of("02", "full", "ml.g6e.2xlarge", **asked, lora_rank=16))
    found = job_duration(*job_of("02", "full", "ml.g6e.2xlarge", **{**asked, **changes}))
    assert one and found and found.learn == pytest.approx(one.learn * passes / 2)


def test_attention_costs_more_in_longer_sequences_of_as_many_tokens():
    plain = {"NUMBERS": {}, "LAUNCHER": {}, "max_steps": 10, "lora_rank": 16, "use_vllm": False}
    plain |= {"gradient_checkpointing": False, "quantization": None, "gradient_accumulation_steps": 1}
    short, long = (
        job_duration(
            *job_of(
                "02",
                "full",
                "ml.g6e.2xlarge",
                **plain,
                per_device_train_batch_size=sequences,
                max_completion_length=length - PROMPT_TOKENS,
            )
        )
        for sequences, length in ((16, 2048), (2, 16384))
    )
    shape = SHAPES["Qwen3-1.7B"]
    assert short and long
    # Multiply-adds of one token with the tokens before it, in all heads, beside those with all weights
    of_attention = {length: shape.layers * shape.heads * shape.head_size * length for length in (2048, 16384)}
    expected = (shape.parameters + of_attention[16384]) / (shape.parameters + of_attention[2048])
    assert long.learn / short.learn == pytest.approx(expected)
    assert expected > 1.4


def test_a_reward_model_answers_first_and_learns_then():
    job = job_of("02", "reward_model_gpu", "ml.g6e.12xlarge", "train_reward_model.py", LAUNCHER={})
    found = job_duration(*job)
    assert found and found.steps == 19 and found.generate == 0  # 600 pairs at most, 32 a step
    assert found.evaluation > found.steps * found.learn > 0


def test_hyperparameters_may_be_text():
    number = job_duration(*job_of("02", "full", "ml.g6e.12xlarge", max_steps=40))
    assert number == job_duration(*job_of("02", "full", "ml.g6e.12xlarge", max_steps="40"))


def test_what_the_time_cannot_be_said_of():
    assert job_duration(*job_of("02", "tiny", "ml.c5.xlarge")) is None  # no GPU
    assert job_duration(*job_of("02", "full", "ml.g6e.12xlarge", base_model="hub:some/other")) is None
    assert job_duration(*job_of("02", "full", "ml.g6e.12xlarge", LOCAL=True)) is None
    assert (
        job_duration(*job_of("02", "full", "ml.g6e.12xlarge", max_steps=-1)) is None
    )  # as many as there are rows


def test_a_limit_that_the_job_will_probably_meet_is_a_warning():
    job = job_of("04", "full", "ml.g6e.2xlarge", MAX_RUNTIME_S=14 * 3600)
    assert [check.status for check in check_duration(*job)] == [NOTE]
    [check] = check_duration(*job_of("04", "full", "ml.g6e.2xlarge", MAX_RUNTIME_S=4 * 3600))
    assert check.status == WARNING and "max_runtime_in_seconds stops it after 4.0 h" in check.detail


def test_the_cost_before_is_a_ceiling_and_an_estimate():
    job = job_of("02", "full", "ml.g6e.12xlarge", HOSTS=2, MAX_RUNTIME_S=6 * 3600)
    check = check_cost(*job)
    found = job_duration(*job)
    assert found and check.status == NOTE
    assert (
        "at most $157.44" in check.detail
        and f"about ${13.12 * 2 * found.total / 3600:,.2f} if" in check.detail
    )
    assert "the AWS Price List API, us-east-1, 2026-" in check.detail
    above = check_cost(*job_of("02", "full", "ml.g6e.12xlarge", MAX_RUNTIME_S=3600))
    assert "at most $13.12: 1 x" in above.detail  # an estimate above the ceiling says nothing
    assert check_cost(*job_of("02", "full", "ml.g6e.12xlarge", LOCAL=True)).status == OK
    unknown = check_cost(*job_of("02", "full", "ml.p5e.48xlarge"))
    assert unknown.status == WARNING and "is not known here" in unknown.detail
    planned = check_cost(*job_of("02", "full", "ml.g6e.12xlarge", TRAINING_PLAN="arn:aws:sagemaker:x"))
    assert "paid for in advance" in planned.detail


def test_instances_that_wait_for_the_next_job_are_paid_for():
    assert list(check_warm_pool(job_of("02", "full", "ml.g6e.12xlarge")[0])) == []
    [check] = check_warm_pool(job_of("02", "full", "ml.g6e.12xlarge", KEEP_ALIVE_S=1800)[0])
    assert check.status == NOTE and "at most $6.56 ($0.219 a minute)" in check.detail
    [check] = check_warm_pool(job_of("02", "full", "ml.p5e.48xlarge", KEEP_ALIVE_S=1800)[0])
    assert check.status == WARNING


def test_instances_that_would_wait_for_more_than_an_hour_are_one_problem():
    asked = {"KEEP_ALIVE_S": 3601, "NUMBERS": {"keep_alive_period_in_seconds": 3601}}
    request, _ = job_of("02", "full", "ml.g6e.12xlarge", **asked)
    [problem] = [
        check for check in (*check_numbers(request), *check_warm_pool(request)) if check.status == PROBLEM
    ]
    assert problem.detail == "keep_alive_period_in_seconds is 3601: it must be from 0 to 3600"


@pytest.fixture
def aws(monkeypatch):
    """As on AWS: no endpoint of this machine."""
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    for name, value in (("REGION", "us-east-1"), ("ACCESS_KEY_ID", "x"), ("SECRET_ACCESS_KEY", "x")):
        monkeypatch.setenv(f"AWS_{name}" if name != "REGION" else "AWS_DEFAULT_REGION", value)


def ended(
    instance_type: str = "ml.g6.xlarge", count: int = 1, plan: str | None = None, **fields
) -> TrainingJob:
    resources = ResourceConfig(instance_type=instance_type, instance_count=count, volume_size_in_gb=100)
    if plan:
        resources.training_plan_arn = plan
    return TrainingJob(training_job_name="grpo-1", resource_config=resources, **fields)


def test_the_cost_after_is_what_is_billed(aws):
    cost = job_cost(ended(count=2, billable_time_in_seconds=1800))
    assert cost.dollars == pytest.approx(1.127) and cost.seconds == 1800
    assert str(cost).startswith("grpo-1: $1.13, 2 x ml.g6.xlarge for 30 min ($1.127 an hour on demand, ")
    assert cost._repr_html_() == f"<p>{cost}</p>"


def test_a_spot_job_costs_at_most_its_billable_seconds_on_demand(aws):
    spot = job_cost(ended(billable_time_in_seconds=3600, enable_managed_spot_training=True))
    assert spot.dollars == 1.127 and "at most: a spot job's billable seconds" in str(spot)


def test_time_in_the_warm_pool_is_billed_too(aws):
    pool = WarmPoolStatus(status="Terminated", resource_retained_billable_time_in_seconds=600)
    cost = job_cost(ended(billable_time_in_seconds=3000, warm_pool_status=pool))
    assert cost.seconds == 3600 and cost.dollars == 1.127 and "10 min of it in the warm pool" in str(cost)


def test_costs_that_are_not_known(aws):
    assert "not known" in str(job_cost(ended()))  # it has not ended
    unpriced = job_cost(ended("ml.p5e.48xlarge", billable_time_in_seconds=60))
    assert unpriced.dollars is None and "no price was found" in str(unpriced)
    planned = job_cost(
        ended(billable_time_in_seconds=60, plan=f"arn:aws:sagemaker:us-east-1:{'1' * 12}:training-plan/p")
    )
    assert planned.dollars == 0 and "paid for in advance" in str(planned)


def test_jobs_of_local_mode_cost_nothing(aws, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "$0.00" in str(job_cost(ended(billable_time_in_seconds=60))) and "no cost" in str(
        job_cost(ended())
    )


def test_times_in_words():
    assert [in_words(seconds) for seconds in (90, 3600, 86400)] == ["90 s", "60 min", "24.0 h"]
    assert Duration(60, 0, 0, 0, 0).total == 60
