"""A run as a training job: a ModelTrainer as in the notebooks, but of one process, and what it leaves for others."""

import hashlib
import importlib.util
import json
import re
import shutil
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from launchers import RayCluster
from rl.preferences import drop_duplicates, hold_out, read_pairs, write_pairs
from rl.tasks import make_splits, write_splits
from sagemaker.core import image_uris
from sagemaker.core.training.configs import (
    Compute,
    InputData,
    OutputDataConfig,
    SourceCode,
    StoppingCondition,
)
from sagemaker.train import ModelTrainer
from workshop.checks.images import image_address
from workshop.checks.preflight import preflight
from workshop.jobs.outputs import JobOutput, fetch_output
from workshop.jobs.status import job_name
from workshop.session.connection import WorkshopSession
from workshop.session.machines import Machine, read_machine
from workshop.session.staging import stage_source

from seeds.experiments import ExperimentError, Source
from seeds.runs import Run, Settings

HELD_OUT_PAIRS = 0.12  # share of the pairs' questions, as held_out_pairs in notebook 01
LONGEST_NAME = 24  # of a job, before what makes it unique


class Left(NamedTuple):
    """What a run has left: the folder of its output, and its model as a folder or in S3 ("": none)."""

    data: Path
    model: str


@dataclass(frozen=True)
class LeftBehind:
    """Where earlier runs' output is found again, also by a later call of the command."""

    folder: Path  # build/seeds/<module>
    mode: str

    def find(self, key: tuple[str, int]) -> Left | None:
        """What the run with this key has left; None where it is not to be had in this mode."""
        try:
            note = json.loads(self._note(key).read_text())
        except (OSError, ValueError):
            return None
        left = Left(Path(note["data"]), note["model"])
        remote = left.model.startswith("s3://")
        model_there = self.mode == "sagemaker" if remote else not left.model or Path(left.model).is_dir()
        return left if model_there and left.data.is_dir() else None

    def keep(self, key: tuple[str, int], output: JobOutput) -> None:
        """Notes where a run's output is."""
        # On AWS a following job takes the model from S3; the local endpoint's S3 is gone when it ends.
        model = output.model_uri if self.mode == "sagemaker" else str(output.model_folder or "")
        note = self._note(key)
        note.parent.mkdir(parents=True, exist_ok=True)
        note.write_text(json.dumps({"job": output.name, "data": str(output.data), "model": model}))

    def _note(self, key: tuple[str, int]) -> Path:
        return self.folder / "left" / f"{key[0]}-{key[1]}.json"


@dataclass
class Workplace:
    """What a module's runs are started with."""

    session: WorkshopSession
    module: Path
    left: LeftBehind
    instance_type: str = ""  # empty: that of the recipe's row in machines.yaml
    _checked: set[str] = field(default_factory=set)  # fingerprints
    _data: dict[str, dict[str, Path]] = field(default_factory=dict)

    @cached_property
    def source_dir(self) -> Path:
        """The staged scripts, the same for all runs."""
        return stage_source(self.module / "scripts", build=self.left.folder)

    def machine(self, run: Run) -> Machine:
        """What the run's job runs on."""
        row, changes = run.settings.machine, {"instance_type": self.instance_type}
        return read_machine(self.module / "machines.yaml", row, **changes)

    def start(self, run: Run) -> str:
        """Creates the job; returns its name. Raises PreflightError where it could not work."""
        trainer, channels = self._trainer(run), self._channels(run)
        if run.settings.fingerprint not in self._checked:  # the other seeds change nothing that it looks at
            # A nested recipe is checked by its own script, which knows its form.
            nested = {"recipe": lambda request: ({}, [])} if run.settings.nested else {}
            preflight(trainer, channels, **nested)
            self._checked.add(run.settings.fingerprint)
        trainer.train(input_data_config=channels, wait=False, logs=False)
        return job_name(trainer)

    def fetch(self, name: str) -> JobOutput:
        """The results of a job that has completed, and in local mode its model."""
        return fetch_output(name, self.left.folder / "jobs", model=self.left.mode == "local")

    def _trainer(self, run: Run) -> ModelTrainer:
        ws, machine = self.session, self.machine(run)
        environment = {**ws.environment, "JOB_MAX_SECONDS": str(machine.max_seconds)}
        environment["CUDA_VISIBLE_DEVICES"] = "0"  # or transformers would spread one process over all GPUs
        if ws.mode == "local":
            environment["OMP_NUM_THREADS"] = (
                "1"  # a job a core; and sums do not depend on how many cores there are
            )
        image = image_uris.retrieve(
            "pytorch",
            ws.region,
            version="2.10.0",
            instance_type=machine.instance_type,
            image_scope="training",
        )
        return ModelTrainer(
            sagemaker_session=ws.session,
            role=ws.role,
            base_job_name=ws.unique(_short(run)),
            training_image=image_address(image, machine.image),
            source_code=SourceCode(
                source_dir=str(self.source_dir),
                entry_script=run.settings.script,
                requirements=machine.requirements,
            ),
            distributed=RayCluster(process_count_per_node=1) if run.settings.nested else None,
            compute=Compute(
                instance_type=machine.instance_type,
                instance_count=1,
                volume_size_in_gb=100,
                volume_kms_key_id=ws.volume_kms_key(machine.instance_type),
            ),
            stopping_condition=StoppingCondition(max_runtime_in_seconds=machine.max_seconds),
            output_data_config=OutputDataConfig(
                s3_output_path=f"s3://{ws.bucket}/jobs",
                compression_type=machine.compression_type,
                kms_key_id=ws.kms_key,
            ),
            hyperparameters=run.settings.with_seed(run.seed),
            environment=environment,
            networking=ws.networking,
            tags=ws.tags,
        )

    def _channels(self, run: Run) -> list[InputData]:
        """The splits of the data, but for those that a channel names or replaces, and those channels."""
        splits = self._splits(run.settings)
        sources: dict[str, str] = {}
        for channel, source in run.settings.channels.items():
            if source.kind == "split":
                if source.of not in splits:
                    raise ExperimentError(f"The data has no split {source.of!r}; it has {', '.join(splits)}.")
                sources[channel] = str(splits[source.of])
            else:
                sources[channel] = self._from_another(source, (run.settings.needs[channel], run.seed))
        renamed = {source.of for source in run.settings.channels.values() if source.kind == "split"}
        given = {split: str(folder) for split, folder in splits.items() if split not in renamed} | sources
        return [InputData(channel_name=name, data_source=place) for name, place in given.items()]

    def _splits(self, settings: Settings) -> dict[str, Path]:
        which = repr((settings.data, settings.system_prompt))
        if which not in self._data:
            self._data[which] = write_data(self.module, settings, self.left.folder)
        return self._data[which]

    def _from_another(self, source: Source, key: tuple[str, int]) -> str:
        left = self.left.find(key)
        if left is None:
            raise ExperimentError(f"What {source.of} left with seed {key[1]} is not there any more.")
        if source.kind == "model":
            if not left.model:
                raise ExperimentError(f"{source.of} left no model.")
            return left.model
        made = left.data / (source.file or "pairs.jsonl")
        if not made.is_file():
            there = ", ".join(sorted(path.name for path in left.data.iterdir())) or "nothing"
            raise ExperimentError(f"{source.of} left no {made.name} among its output, but {there}.")
        # A channel is a folder, and this one holds nothing else.
        folder = (
            self.left.folder / "channels" / f"{key[0]}-{key[1]}" / source.kind.replace(" ", "-") / made.stem
        )
        folder.mkdir(parents=True, exist_ok=True)
        if source.kind == "output":
            shutil.copy(made, folder / made.name)
        else:
            learned, held_out = hold_out(drop_duplicates(read_pairs(made)), HELD_OUT_PAIRS)
            write_pairs(learned if source.kind == "training pairs" else held_out, folder / made.name)
        return str(folder)


def write_data(module: Path, settings: Settings, folder: Path) -> dict[str, Path]:
    """The problems of an experiment, each split in a folder of its own. Raises ExperimentError, DataError."""
    data = settings.data
    if data.function:
        splits = _own_rows(module / "scripts", data.function)(data.seed)
    else:
        splits = make_splits(data.task, data.splits, seed=data.seed, system_prompt=settings.system_prompt)
    digest = hashlib.sha256(json.dumps(splits, sort_keys=True).encode()).hexdigest()[:12]
    return write_splits(splits, folder / "data" / digest)


def _own_rows(scripts: Path, name: str) -> Any:
    """The function file.function beside the training scripts, by its path: several modules may have a file of one name."""
    file, _, function = name.partition(".")
    spec = importlib.util.spec_from_file_location(
        f"rows_of_{scripts.parent.name}_{file}", scripts / f"{file}.py"
    )
    if not (scripts / f"{file}.py").is_file() or spec is None or spec.loader is None:
        raise ExperimentError(f"data: {name}: there is no {file}.py in {scripts}.")
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    if not callable(getattr(found, function, None)):
        raise ExperimentError(f"data: {name}: there is no function {function} in {scripts / file}.py.")
    return getattr(found, function)


def _short(run: Run) -> str:
    """A job's name out of its variant's: of letters, digits and hyphens, as SageMaker wants it."""
    words = re.sub(r"[^a-z0-9]+", "-", run.places[0][1].lower()).strip("-")
    return f"{words[: LONGEST_NAME - 3].strip('-') or 'run'}-s{run.seed % 100}"
