"""What a job is given arrives in it: requirements, hyperparameters, channels of every kind, a driver of one's own."""

import json

import boto3
import pytest
from botocore.exceptions import ClientError
from endpoint_fixtures import launch, phases, put_text, reported, wait_end

pytestmark = pytest.mark.endpoint


def test_requirements_are_installed_and_bad_ones_are_the_failure_reason(endpoint, make_trainer):
    good = wait_end(launch(make_trainer("import iniconfig", requirements="iniconfig==2.3.0\n")))
    assert good["TrainingJobStatus"] == "Completed", good
    for text, words in (
        ("no-such-package-of-the-workshop==1.0\n", "no-such-package-of-the-workshop"),
        ("torch==2.13.0\n", "must not name torch"),
    ):
        bad = wait_end(launch(make_trainer("", requirements=text)))
        assert bad["TrainingJobStatus"] == "Failed" and words in bad["FailureReason"]
        assert phases(bad) == ["Starting", "Failed"], "nothing was run"


def test_hyperparameters_arrive_as_they_were_given(endpoint, make_trainer):
    values = {
        "text": 'ünï 漢字 🙂 "quoted" \\n $HOME `ls` $(id) & | ; * #',
        "list": ['a "b"', "ç"],
        "nested": {"k": [1, 2.5, None, True]},
        "empty": "",
        "number": 1e-5,
    }
    name = launch(make_trainer('report("argv", sys.argv[1:])', hyperparameters=values))
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    argv = reported(name)["argv"]
    arrived = dict(zip(argv[::2], argv[1::2], strict=True))
    assert arrived["--text"] == values["text"] and arrived["--empty"] == ""
    assert {k: json.loads(arrived[f"--{k}"]) for k in ("list", "nested", "number")} == {
        k: values[k] for k in ("list", "nested", "number")
    }


def test_a_single_quote_breaks_the_sdks_driver_and_the_job_fails(endpoint, make_trainer):
    description = wait_end(launch(make_trainer("", hyperparameters={"text": "it's"})))
    assert description["TrainingJobStatus"] == "Failed"
    assert "exit code: " in description["FailureReason"]


def test_channels_manifest_sharded_and_fastfile(endpoint, make_trainer):
    from sagemaker.core.shapes import S3DataSource
    from sagemaker.core.training.configs import InputData

    bucket = boto3.client("s3").create_bucket(Bucket="data")["Location"].strip("/")
    for number in range(5):
        put_text(f"s3://{bucket}/set/part-{number}.txt", str(number))
    put_text(f"s3://{bucket}/set-other/part-9.txt", "9")
    put_text(f"s3://{bucket}/list.manifest", '[{"prefix": "s3://data/set/"}, "part-1.txt", "part-3.txt"]')

    def source(uri: str, kind: str = "S3Prefix", distribution: str = "FullyReplicated") -> S3DataSource:
        return S3DataSource(s3_data_type=kind, s3_uri=uri, s3_data_distribution_type=distribution)

    trainer = make_trainer(
        """
    for name in json.loads(os.environ["SM_CHANNELS"]):
        if name not in ("code", "sm_drivers"):
            folder = pathlib.Path(os.environ["SM_CHANNEL_" + name.upper()])
            report(name, sorted(str(p.relative_to(folder)) for p in folder.rglob("*")))
    """,
        hosts=2,
        training_input_mode="FastFile",
    )
    channels = [
        InputData(channel_name="all", data_source=source("s3://data/set")),
        InputData(channel_name="shard", data_source=source("s3://data/set/", distribution="ShardedByS3Key")),
        InputData(channel_name="chosen", data_source=source("s3://data/list.manifest", "ManifestFile")),
        InputData(channel_name="one", data_source=source("s3://data/set/part-4.txt")),
    ]
    with pytest.raises(ClientError, match="'all': s3://data/set is the beginning of s3://data/set-other/"):
        launch(trainer, input_data_config=channels)
    channels[0] = InputData(channel_name="all", data_source=source("s3://data/set/"))
    name = launch(trainer, input_data_config=channels)
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    first, second = reported(name, "algo-1"), reported(name, "algo-2")
    everything = [f"part-{number}.txt" for number in range(5)]
    assert first["all"] == second["all"] == everything
    assert first["chosen"] == ["part-1.txt", "part-3.txt"] and first["one"] == ["part-4.txt"]
    assert first["shard"] and second["shard"] and sorted(first["shard"] + second["shard"]) == everything


def test_custom_driver_across_hosts(endpoint, make_trainer, tmp_path):
    from sagemaker.train.distributed import DistributedConfig

    folder = tmp_path / "driver"
    folder.mkdir()
    (folder / "echo_driver.py").write_text(
        "import json, os, socket, subprocess, sys\n"
        "config = json.loads(os.environ['SM_DISTRIBUTED_CONFIG'])\n"
        "address = socket.gethostbyname(os.environ['SM_MASTER_ADDR'])\n"
        "print('REPORT driver', json.dumps([config['times'], address, os.environ['SM_CURRENT_HOST_RANK']]))\n"
        "sys.exit(subprocess.call([sys.executable, os.environ['SM_ENTRY_SCRIPT'], '--x', '1']))\n"
    )

    class Echo(DistributedConfig):
        times: int = 2

        @property
        def driver_dir(self) -> str:
            return str(folder)

        @property
        def driver_script(self) -> str:
            return "echo_driver.py"

    name = launch(make_trainer('report("argv", sys.argv[1:])', hosts=2, distributed=Echo(times=3)))
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    address = reported(name, "algo-1")["driver"][1]
    assert address.startswith("127.") and address.endswith(".2")
    assert reported(name, "algo-1") == {"driver": [3, address, "0"], "argv": ["--x", "1"]}
    assert reported(name, "algo-2") == {"driver": [3, address, "1"], "argv": ["--x", "1"]}
