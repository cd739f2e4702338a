"""Fetching what jobs leave in S3: archives and single files, with the model and without it, never more than fits."""

import io
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
from endpoint_fixtures import describe, launch, put_text, reported, s3_keys, wait_end, wait_line
from sagemaker.core.training.configs import CheckpointConfig, InputData, OutputDataConfig
from workshop.jobs import outputs
from workshop.jobs.outputs import OutputError, fetch_output
from workshop.jobs.status import training_job
from workshop.views.reports import plot_pass_at_1
from workshop.views.results import append_result

pytestmark = pytest.mark.endpoint

STEPS = """
pathlib.Path(os.environ["SM_MODEL_DIR"], "config.json").write_text("{}")
out = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"])
(out / "history.jsonl").write_text('{"step": 1, "reward": 0.45}\\n{"step": 2, "reward": 0.5}\\n')
(out / "summary.json").write_text('{"module": "02"}')
(out / "sub").mkdir()
(out / "sub" / "more.txt").write_text("more")
"""


def test_the_output_of_a_job(make_trainer, tmp_path):
    trainer = make_trainer(STEPS)
    name = launch(trainer)
    wait_end(name)
    output = fetch_output(trainer, tmp_path / "out", model=True)
    assert output.name == name and (output.model / "config.json").read_text() == "{}"
    assert output.data == tmp_path / "out" / name / "data"
    assert output.history == [{"step": 1, "reward": 0.45}, {"step": 2, "reward": 0.5}]
    assert output.summary == {"module": "02"} and output.checkpoints is None
    with pytest.raises(OutputError, match="left no evaluation before training") as missing:
        assert output.before
    assert f"{name} (Completed)" in str(missing.value)
    assert "There is: 2 logged steps (history); summary (summary)" in str(missing.value)
    assert output.model_uri == describe(name)["ModelArtifacts"]["S3ModelArtifacts"]
    (output.model / "notes.txt").write_text("mine")
    assert (fetch_output(name, tmp_path / "out").model / "notes.txt").read_text() == "mine"
    assert {path.name for path in output.model.parent.iterdir()} == {"model", "data"}, "scratch left behind"


def test_what_a_job_that_was_stopped_on_purpose_lacks_is_said_with_what_there_is(make_trainer, tmp_path):
    boto3.client("s3").create_bucket(Bucket="stopped")
    where = CheckpointConfig(s3_uri="s3://stopped/checkpoints")
    name = launch(
        make_trainer(
            """
            import time
            pathlib.Path("/opt/ml/checkpoints/step-2.txt").write_text("whole")
            out = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"])
            (out / "history.jsonl").write_text('{"step": 1}\\n{"step": 2}\\n')
            print("two steps are done", flush=True)
            time.sleep(60)
            """,
            checkpoint_config=where,
            output_data_config=OutputDataConfig(s3_output_path="s3://stopped/out", compression_type="NONE"),
        )
    )
    wait_line(name, "two steps are done")
    with pytest.raises(OutputError, match="wait for it with watch"):
        fetch_output(name, tmp_path / "out")
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    wait_end(name)
    output = fetch_output(name, tmp_path / "out")
    assert [metrics["step"] for metrics in output.history] == [1, 2]
    with pytest.raises(OutputError, match="left no summary") as missing:
        append_result({**output.summary, "mode": "local"}, tmp_path / "results.json")
    for words in (f"{name} (Stopped)", "2 logged steps (history)", "CheckpointConfig", where.s3_uri):
        assert words in str(missing.value)
    with pytest.raises(OutputError, match="left no evaluation after training"):
        plot_pass_at_1(output.after, output.after)


def test_links_that_lead_elsewhere_are_left_out(make_trainer, tmp_path):
    name = launch(
        make_trainer(
            """
            out = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"])
            (out / "kept.txt").write_text("kept")
            (out / "inside.txt").symlink_to("kept.txt")
            (out / "absolute.log").symlink_to("/var/log/somewhere.log")
            (out / "outside.log").symlink_to("../../../../somewhere.log")
            """
        )
    )
    wait_end(name)
    output = fetch_output(name, tmp_path / "out")
    assert (output.data / "kept.txt").read_text() == (output.data / "inside.txt").read_text() == "kept"
    assert not [path.name for path in output.data.iterdir() if path.suffix == ".log"]


def test_a_job_that_left_nothing(make_trainer, tmp_path):
    name = launch(make_trainer("pass"))
    wait_end(name)
    with pytest.raises(OutputError, match=r"\(Completed\) left neither a model nor other output under s3://"):
        fetch_output(name, tmp_path / "out")


@pytest.mark.parametrize("kind", ["outside", "damaged"])
def test_an_archive_that_is_unsafe_or_damaged_is_not_unpacked(make_trainer, tmp_path, kind):
    bucket = "archives"
    boto3.client("s3").create_bucket(Bucket=bucket)
    name = launch(
        make_trainer("pass", output_data_config=OutputDataConfig(s3_output_path=f"s3://{bucket}/out"))
    )
    wait_end(name)
    uri = f"s3://{bucket}/out/{name}/output/model.tar.gz"
    if kind == "outside":
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            member = tarfile.TarInfo("../../evil.txt")
            member.size = 4
            tar.addfile(member, io.BytesIO(b"evil"))
        boto3.client("s3").put_object(Bucket=bucket, Key=uri.split("/", 3)[3], Body=archive.getvalue())
    else:
        put_text(uri, "no archive")
    with pytest.raises(OutputError, match="cannot be unpacked"):
        fetch_output(name, tmp_path / "out", model=True)
    assert not [path for path in Path(tmp_path).rglob("*") if path.name in ("evil.txt", "model")]


@pytest.fixture(params=["GZIP", "NONE"])
def finished(request, make_trainer) -> str:
    """Name of a job that left model and outputs, as archives or file by file."""
    boto3.client("s3").create_bucket(Bucket="results")
    where = OutputDataConfig(s3_output_path="s3://results/out", compression_type=request.param)
    name = launch(make_trainer(STEPS, output_data_config=where))
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    return name


def downloads(monkeypatch) -> list[str]:
    """Keys of the objects that are downloaded from now on."""
    keys, create = [], boto3.Session.client

    def client(self, *arguments, **options):
        made = create(self, *arguments, **options)
        if arguments == ("s3",):
            download = made.download_file
            made.download_file = lambda bucket, key, file: (keys.append(key), download(bucket, key, file))
        return made

    monkeypatch.setattr(boto3.Session, "client", client)
    return keys


def test_the_model_comes_when_asked_for_and_nothing_comes_twice(finished, tmp_path, monkeypatch):
    fetched = downloads(monkeypatch)
    output = fetch_output(finished, tmp_path)
    assert output.summary == {"module": "02"} and (output.data / "sub" / "more.txt").read_text() == "more"
    assert fetched and not [key for key in fetched if "/model" in key]
    with pytest.raises(
        OutputError, match=rf"fetch_output\('{finished}', folder, model=True\).*{output.model_uri}"
    ):
        _ = output.model
    assert not (tmp_path / finished / "model").exists()

    fetched.clear()
    again = fetch_output(finished, tmp_path, model=True)
    assert (again.model / "config.json").read_text() == "{}" and again.model_uri == output.model_uri
    assert len(fetched) == 1 and "/model" in fetched[0]
    fetched.clear()
    assert fetch_output(finished, tmp_path).model == again.model, "it is there, asked for or not"
    assert fetched == []
    assert {path.name for path in (tmp_path / finished).iterdir()} == {"model", "data"}, "scratch left behind"


def test_what_does_not_fit_is_not_begun(finished, tmp_path, monkeypatch):
    fetch_output(finished, tmp_path)
    fetched = downloads(monkeypatch)
    monkeypatch.setattr(outputs.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1))
    with pytest.raises(
        OutputError, match=r"/output/model.* needs 0\.0 GB of disk.*0\.0 GB are free.*as a channel"
    ):
        fetch_output(finished, tmp_path, model=True)
    assert fetched == []
    monkeypatch.undo()
    assert shutil.disk_usage(tmp_path).free > 1 and fetch_output(finished, tmp_path, model=True).model


def test_the_next_job_takes_the_model_from_where_it_lies(finished, make_trainer):
    uri = training_job(finished).model_artifacts.s3_model_artifacts
    trainer = make_trainer("report('files', sorted(os.listdir(os.environ['SM_CHANNEL_TRAINED'])))")
    name = launch(trainer, input_data_config=[InputData(channel_name="trained", data_source=uri)])
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    assert reported(name)["files"] in (["model.tar.gz"], ["config.json"])


def test_uncompressed_results_lie_in_s3_file_by_file(make_trainer):
    boto3.client("s3").create_bucket(Bucket="results")
    where = OutputDataConfig(s3_output_path="s3://results/out/", compression_type="NONE")
    name = launch(make_trainer(STEPS, output_data_config=where))
    description = wait_end(name)
    folder = f"out/{name}/output"
    assert description["ModelArtifacts"]["S3ModelArtifacts"] == f"s3://results/{folder}/model/"
    assert s3_keys(f"s3://results/{folder}") == [
        f"{folder}/data/history.jsonl",
        f"{folder}/data/sub/more.txt",
        f"{folder}/data/summary.json",
        f"{folder}/model/config.json",
    ]


def test_a_job_without_a_model_has_none(make_trainer, tmp_path):
    name = launch(make_trainer("pathlib.Path(os.environ['SM_OUTPUT_DATA_DIR'], 'a.txt').write_text('a')"))
    wait_end(name)
    assert fetch_output(name, tmp_path).model is None


def test_a_key_that_leads_out_of_its_folder_is_refused(make_trainer, tmp_path):
    boto3.client("s3").create_bucket(Bucket="results")
    where = OutputDataConfig(s3_output_path="s3://results/out", compression_type="NONE")
    name = launch(make_trainer(STEPS, output_data_config=where))
    wait_end(name)
    put_text(f"s3://results/out/{name}/output/model/../../../evil.txt", "evil")
    with pytest.raises(OutputError, match="would leave its folder"):
        fetch_output(name, tmp_path / "out", model=True)
    assert not list(tmp_path.rglob("evil.txt"))
