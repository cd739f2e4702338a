"""interrupt_at_step takes the machine of a running spot job away, once, and never anything else."""

import dataclasses

from endpoint_fixtures import describe, launch, log_lines, phases, wait_end
from lesson.spot import interrupt_at_step, logged_steps, plot_attempts
from sagemaker.core.training.configs import CheckpointConfig, StoppingCondition
from workshop.session.connection import WorkshopSession

# Trains ten steps, of which it keeps a note; the second attempt goes on behind the last one noted.
TEN_STEPS = """
import time
note = pathlib.Path(os.environ.get("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints")) / "step"
start = int(note.read_text()) if note.exists() else 0
for step in range(start + 1, 11):
    print(f"[metrics] step={step}/10 reward=0.5", flush=True)
    note.write_text(str(step))
    time.sleep(0.6)
"""


def session(endpoint) -> WorkshopSession:
    fields = {field.name: "" for field in dataclasses.fields(WorkshopSession)}
    return WorkshopSession(**fields | {"mode": "local", "session": None, "endpoint_url": endpoint.url})


def spot_job(make_trainer):
    return make_trainer(
        TEN_STEPS,
        spot=True,
        checkpoint_config=CheckpointConfig(s3_uri="s3://sagemaker-us-east-1-123456789012/spot-test"),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600, max_wait_time_in_seconds=900),
    )


def test_a_job_is_interrupted_once_and_goes_on(endpoint, make_trainer, capsys):
    trainer = spot_job(make_trainer)
    name = launch(trainer)
    thread = interrupt_at_step(session(endpoint), trainer, 4)
    assert f"{name} loses its machine" in capsys.readouterr().out
    ended = wait_end(name)
    thread.join(20)
    assert not thread.is_alive()
    assert ended["TrainingJobStatus"] == "Completed"
    assert phases(ended).count("Interrupted") == 1
    steps = [line.split()[1] for line in log_lines(name) if line.startswith("[metrics]")]
    assert steps[:4] == [f"step={step}/10" for step in (1, 2, 3, 4)] and steps[-1] == "step=10/10"
    reported = logged_steps(trainer)
    assert [f"step={step}/10" for _, step in reported] == steps
    moments = [moment for moment, _ in reported]
    assert moments == sorted(moments) and 0 <= moments[0] and moments[-1] > 10 * 0.6 - 1


def test_a_job_that_ends_before_is_left_alone(endpoint, make_trainer):
    trainer = make_trainer("print('[metrics] step=1/1 reward=1.0', flush=True)")
    thread = interrupt_at_step(session(endpoint), launch(trainer), 5)
    name = trainer._latest_training_job.training_job_name
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    thread.join(20)
    assert not thread.is_alive() and "Interrupted" not in phases(describe(name))


def test_on_aws_it_only_explains(capsys):
    aws = dataclasses.replace(session(type("Endpoint", (), {"url": None})), mode="sagemaker")
    assert interrupt_at_step(aws, "some-job", 3) is None
    assert "takes a spot instance back" in capsys.readouterr().out


def test_steps_that_were_trained_again_are_told_apart():
    plot = plot_attempts([(3.0, 1), (4.0, 2), (5.0, 3), (9.0, 2), (10.0, 3), (11.0, 4)])
    assert plot.summary.endswith("4 trained; trained again: 2, 3")
    (axes,) = plot.figure.axes
    assert [len(line.get_xdata()) for line in axes.lines] == [4, 2]


def test_a_job_without_a_break_trained_nothing_again():
    plot = plot_attempts([(3.0, 1), (4.0, 2)])
    assert plot.summary.endswith("2 trained; trained again: none")
    assert len(plot.figure.axes[0].lines) == 1
