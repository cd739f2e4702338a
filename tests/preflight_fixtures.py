"""What the tests of preflight begin with: data, the tiny model to be spoilt, a module's source, and a sound request.

conftest.py hands the fixtures out, so what takes long to import (the SDK) is imported by those who ask for it.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from endpoint_fixtures import IMAGE
from local_sagemaker import client
from rl.tasks import make_splits, write_splits
from workshop.session.staging import stage_source

ROOT = Path(__file__).parents[1]
TINY = ROOT / "scripts" / "assets" / "tiny"
GRPO = ROOT / "02_grpo_trl_accelerate" / "scripts"


@pytest.fixture(scope="module")
def data(request, tmp_path_factory) -> dict[str, Path]:
    """Rows of chain_sum, a folder for each split. A module may set SPLITS, if it needs others than 40 rows to train on."""
    splits = make_splits("chain_sum", getattr(request.module, "SPLITS", {"train": 40}))
    return write_splits(splits, tmp_path_factory.mktemp("data"))


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def no_template(model):
    (model / "chat_template.jinja").unlink()


@pytest.fixture
def source(tmp_path) -> Path:
    """The module's scripts and what all modules share, as a job is sent them."""
    return stage_source(GRPO, build=tmp_path)


@pytest.fixture
def make_request(endpoint, source, data) -> Callable:
    """make_request(hyperparameters={...}, ...) -> (trainer, channels): a sound request, with the given changes."""
    from launchers import AccelerateLaunch
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, InputData, SourceCode
    from sagemaker.train import ModelTrainer

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
