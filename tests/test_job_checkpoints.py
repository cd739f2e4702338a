"""Which checkpoint a job goes on from, when some are damaged in each of the ways that an interruption leaves them or are
another job's; and where its training ends."""

import contextlib
import copy
import importlib
import json
import shutil
import sys
import threading
from unittest.mock import MagicMock

import pytest
import torch
from datasets import Dataset
from job.checkpoints import (
    CheckpointError,
    CheckpointMarker,
    NothingTrained,
    delete_older,
    mark_complete,
    newest_complete,
    train,
)
from tiny import tiny_model, tiny_tokenizer
from transformers import Qwen2ForSequenceClassification, Trainer, TrainingArguments
from trl import DPOConfig, DPOTrainer, RewardConfig, RewardTrainer


@pytest.fixture
def checkpoints(tmp_path):
    """Three complete checkpoints: 5, 20 and 100 steps."""
    for step in (5, 20, 100):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "deeper").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"w" * 100)
        (folder / "deeper" / "optimizer.pt").write_bytes(b"o" * 50)
        mark_complete(folder)
    return tmp_path


def test_the_newest_by_number_wins(checkpoints, capsys):
    (checkpoints / "checkpoint-best").mkdir()
    (checkpoints / "checkpoint-999").write_text("a file")
    assert newest_complete(checkpoints).name == "checkpoint-100"
    assert capsys.readouterr().out == "Going on from checkpoint-100.\n"


@pytest.mark.parametrize("empty", [True, False])
def test_nothing_to_go_on_from(tmp_path, empty, capsys):
    assert newest_complete(tmp_path if empty else tmp_path / "nowhere") is None
    assert capsys.readouterr().out == ""


DAMAGE = {
    "it was never finished": lambda folder: (folder / "complete-0.json").unlink(),
    "complete-0.json is cut off": lambda folder: (folder / "complete-0.json").write_text('{"hosts": 1, "fi'),
    "model.safetensors is missing": lambda folder: (folder / "model.safetensors").unlink(),
    "deeper/optimizer.pt has 7 of 50 bytes": lambda folder: (folder / "deeper" / "optimizer.pt").write_bytes(
        b"o" * 7
    ),
    "model.safetensors has changed since it was written": lambda folder: (
        folder / "model.safetensors"
    ).write_bytes(b"w" * 50 + b"\0" * 50),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_one_is_skipped_with_the_reason(checkpoints, problem, capsys):
    DAMAGE[problem](checkpoints / "checkpoint-100")
    assert newest_complete(checkpoints).name == "checkpoint-20"
    expected = f"Skipping checkpoint-100, which is not whole: {problem}.\nGoing on from checkpoint-20.\n"
    assert capsys.readouterr().out == expected


def test_only_the_main_process_prints(checkpoints, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert newest_complete(checkpoints).name == "checkpoint-100"
    assert capsys.readouterr().out == ""


def test_every_host_must_have_finished(checkpoints, monkeypatch, capsys):
    monkeypatch.setenv("SM_HOST_COUNT", "2")
    for step, hosts in ((100, "0"), (20, "01")):
        folder = checkpoints / f"checkpoint-{step}"
        for host in hosts:
            monkeypatch.setenv("SM_CURRENT_HOST_RANK", host)
            mark_complete(folder)
    assert newest_complete(checkpoints).name == "checkpoint-20"
    assert "1 of 2 hosts finished it" in capsys.readouterr().out


def test_marking_again_after_a_restart_counts_the_files_anew(checkpoints):
    folder = checkpoints / "checkpoint-100"
    (folder / "model.safetensors").write_bytes(b"w" * 10)
    mark_complete(folder)
    assert newest_complete(checkpoints) == folder


@pytest.mark.parametrize(("limit", "left"), [(None, 4), (3, 4), (2, 3), (1, 2), (0, 2)])
def test_older_ones_are_deleted_and_one_that_was_not_finished_counts_for_none(checkpoints, limit, left):
    """Of 5, 20 and 100, in a run that went on from 20 after one that had been killed while it wrote 120."""
    (checkpoints / "checkpoint-120").mkdir()
    (checkpoints / "checkpoint-notes").mkdir()
    delete_older(checkpoints / "checkpoint-100", limit)
    names = {f"checkpoint-{step}" for step in (5, 20, 100, 120)[-left:]} | {"checkpoint-notes"}
    assert {path.name for path in checkpoints.iterdir()} == names
    assert newest_complete(checkpoints).name == "checkpoint-100"


def test_a_checkpoint_that_cannot_be_deleted_is_an_error(checkpoints, monkeypatch):
    """More than are kept fill the disk."""

    def rmtree(folder, ignore_errors=False):
        if not ignore_errors:
            raise PermissionError(f"no right to delete {folder}")

    monkeypatch.setattr(shutil, "rmtree", rmtree)
    with pytest.raises(PermissionError, match="checkpoint-5"):
        delete_older(checkpoints / "checkpoint-100", 2)


MARKERS = (".sagemaker-uploading", ".sagemaker-uploaded", ".sagemaker-ignore")


def test_markers_of_sagemakers_agent_are_no_part_of_a_checkpoint(checkpoints):
    """They lie beside its files while it is marked, and are gone where the next container restores it from S3."""
    folder = checkpoints / "checkpoint-100"
    markers = [folder / f"model.safetensors{MARKERS[0]}"]
    markers += [folder / "deeper" / f"optimizer.pt{ending}" for ending in MARKERS[1:]]
    for marker in markers:
        marker.touch()
    mark_complete(folder)
    for marker in markers:
        marker.unlink()
    assert newest_complete(checkpoints) == folder


def test_no_host_fetches_markers_from_another(tmp_path, monkeypatch):
    for name in ("ray", "ray.util", "ray.util.scheduling_strategies"):  # which only the images of 05 have
        monkeypatch.setitem(sys.modules, name, MagicMock())
    monkeypatch.delitem(sys.modules, "verl_hosts", raising=False)
    (tmp_path / "actor").mkdir()
    for name in ("model.pt", *(f"model.pt{ending}" for ending in MARKERS)):
        (tmp_path / "actor" / name).write_text("12")
    assert importlib.import_module("verl_hosts").list_files(tmp_path) == {"actor/model.pt": 2}
    del sys.modules["verl_hosts"]


def test_a_checkpoint_is_deleted_while_the_agent_puts_markers_there_and_takes_them_away(tmp_path):
    over = threading.Event()

    def agent():
        while not over.is_set():
            with contextlib.suppress(FileNotFoundError):
                for file in sorted(tmp_path.glob("checkpoint-1*/*")):
                    if not file.suffix:
                        file.with_suffix(MARKERS[0]).touch()
                        file.with_suffix(MARKERS[0]).replace(file.with_suffix(MARKERS[1]))

    (newest := tmp_path / "checkpoint-2000").mkdir()
    markers = threading.Thread(target=agent)
    markers.start()
    try:
        for step in range(1000, 1200):
            folder = tmp_path / f"checkpoint-{step}"
            folder.mkdir()
            for number in range(20):
                (folder / str(number)).touch()
            delete_older(newest, 1)
            assert not folder.exists()
    finally:
        over.set()
        markers.join()


def test_a_marker_without_digests_is_taken(checkpoints):
    marker = checkpoints / "checkpoint-100" / "complete-0.json"
    content = json.loads(marker.read_text())
    assert set(content.pop("sha256")) == set(content["files"])
    marker.write_text(json.dumps(content))
    assert newest_complete(checkpoints).name == "checkpoint-100"


MADE_OF = {"data": "3fa2", "base": "asset:tiny (91ab)"}


@pytest.mark.parametrize("prefix", ["checkpoint-", "global_step_"])
@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_checkpoint_of_another_job_is_refused_with_both_named(tmp_path, prefix, rank, monkeypatch, capsys):
    monkeypatch.setenv("RANK", rank)
    (tmp_path / f"{prefix}20").mkdir()
    mark_complete(tmp_path / f"{prefix}20", MADE_OF)
    assert newest_complete(tmp_path, prefix, MADE_OF) is not None
    assert newest_complete(tmp_path, prefix) is not None
    with pytest.raises(CheckpointError) as refused:
        newest_complete(tmp_path, prefix, {**MADE_OF, "data": "77c0"})
    assert str(refused.value) == (
        f"{prefix}20 was made with data 3fa2, this job has 77c0: give the job a checkpoint folder of its own, or the data "
        "back."
    )
    with pytest.raises(CheckpointError, match="data 3fa2, .* made with base asset:tiny .*data and base back"):
        newest_complete(tmp_path, prefix, {"data": "77c0", "base": "hub:a/b"})


def test_checkpoints_that_say_nothing_are_taken_with_a_line(checkpoints, capsys):
    assert newest_complete(checkpoints, fingerprints=MADE_OF).name == "checkpoint-100"
    assert capsys.readouterr().out == (
        "checkpoint-100 does not say which data and base it was made with.\nGoing on from checkpoint-100.\n"
    )


def test_a_damaged_checkpoint_of_another_job_stops_nobody(checkpoints):
    newest = checkpoints / "checkpoint-100"
    mark_complete(newest, MADE_OF)
    (newest / "model.safetensors").unlink()
    assert newest_complete(checkpoints, fingerprints={"data": "77c0"}).name == "checkpoint-20"


PAIRS = [
    {
        "prompt": [{"role": "user", "content": str(number)}],
        "chosen": [{"role": "assistant", "content": "yes"}],
        "rejected": [{"role": "assistant", "content": "no"}],
    }
    for number in range(10)
]
TEXTS = [{"input_ids": [number, 5, 6], "labels": [number, 5, 6]} for number in range(10)]


def dpo_trainer(model, **settings):
    config, rows = DPOConfig(**settings), Dataset.from_list(PAIRS)
    reference = copy.deepcopy(model)
    return DPOTrainer(model, reference, args=config, train_dataset=rows, processing_class=tiny_tokenizer())


def reward_trainer(model, **settings):
    model.config.num_labels = 1
    scorer = Qwen2ForSequenceClassification(model.config)
    scorer.model.load_state_dict(model.model.state_dict())
    torch.nn.init.ones_(scorer.score.weight)
    config, rows = RewardConfig(**settings), Dataset.from_list(PAIRS)
    return RewardTrainer(scorer, args=config, train_dataset=rows, processing_class=tiny_tokenizer())


def plain_trainer(model, **settings):
    return Trainer(model, TrainingArguments(**settings), train_dataset=TEXTS)


ENDS = {  # ten rows, two batches a step: three steps an epoch, the last of one batch
    "max_steps": ({"max_steps": 4}, 4),
    "epochs": ({"num_train_epochs": 2}, 6),
    "most of an epoch": ({"num_train_epochs": 0.7}, 3),
}


@pytest.mark.parametrize(
    ("make", "end"),
    [
        *((plain_trainer, end) for end in ENDS),
        (dpo_trainer, "max_steps"),
        (reward_trainer, "most of an epoch"),
    ],
)
def test_a_checkpoint_of_the_last_step_is_loaded_and_nothing_is_trained(make, end, tmp_path, capsys):
    settings, steps = ENDS[end]

    def trained(model, checkpoint):
        trainer = make(
            model,
            output_dir=str(tmp_path),
            per_device_train_batch_size=2,
            gradient_accumulation_steps=2,
            learning_rate=1e-2,
            save_steps=1,
            logging_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            disable_tqdm=True,
            **settings,
        )
        trainer.add_callback(CheckpointMarker())
        return trainer, train(trainer, checkpoint)

    first, training = trained(tiny_model()[0], None)
    assert training.steps == first.state.global_step == steps
    weights = copy.deepcopy(first.model.state_dict())

    again, training = trained(tiny_model()[0], newest_complete(tmp_path))
    assert (training.steps, again.state.global_step) == (0, steps)
    assert f"checkpoint-{steps} holds all {steps} steps: nothing is left to train." in capsys.readouterr().out
    assert all(torch.equal(weights[name], value) for name, value in again.model.state_dict().items())
    logged = [logs["step"] for logs in again.state.log_history if "loss" in logs]
    assert logged == list(range(1, steps + 1))

    shutil.rmtree(tmp_path / f"checkpoint-{steps}")
    before_the_last, training = trained(tiny_model()[0], newest_complete(tmp_path))
    assert (training.steps, before_the_last.state.global_step) == (1, steps)


@pytest.mark.parametrize("step", [2, 4])
def test_a_start_from_a_checkpoint_evaluates_no_step_again(step, tmp_path):
    def evaluated(checkpoint):
        evaluations = {"eval_on_start": True, "eval_strategy": "steps", "eval_steps": 2}
        settings = {"save_steps": 2, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
        config = TrainingArguments(str(tmp_path), max_steps=4, **evaluations, **settings)
        trainer = Trainer(tiny_model()[0], config, train_dataset=TEXTS, eval_dataset=TEXTS)
        train(trainer, checkpoint)
        return [logs["step"] for logs in trainer.state.log_history if "eval_loss" in logs]

    assert evaluated(None) == [0, 2, 4]
    assert evaluated(tmp_path / f"checkpoint-{step}") == [0, 2, 4]


def test_fewer_steps_than_a_checkpoint_holds(tmp_path):
    settings = {"save_steps": 1, "report_to": "none", "use_cpu": True, "disable_tqdm": True}
    trainer = plain_trainer(tiny_model()[0], output_dir=str(tmp_path), max_steps=3, **settings)
    train(trainer, None)
    fewer = plain_trainer(tiny_model()[0], output_dir=str(tmp_path), max_steps=2, **settings)
    assert train(fewer, tmp_path / "checkpoint-3").steps == 0
    assert fewer.state.global_step == 3


def test_a_training_without_a_whole_batch_is_an_error(tmp_path):
    """Its model would be the base, and be evaluated as trained."""
    settings = {"per_device_train_batch_size": 64, "dataloader_drop_last": True, "use_cpu": True}
    trainer = plain_trainer(
        tiny_model()[0], output_dir=str(tmp_path), report_to="none", max_steps=2, **settings
    )
    with pytest.raises(NothingTrained, match="No step was trained. 10 rows, max_steps 2"):
        train(trainer, None)


def test_a_marker_keeps_what_the_checkpoint_is_made_of(tmp_path):
    mark_complete(tmp_path, MADE_OF)
    assert json.loads((tmp_path / "complete-0.json").read_text())["fingerprints"] == MADE_OF
