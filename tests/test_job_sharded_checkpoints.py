"""Checkpoints in shards over two hosts: each keeps its own part, S3 brings them together, and a job goes on from there."""

import shutil
from pathlib import Path

import pytest
from harness import ROOT, ScriptJob, run_hosts
from job.recipe import read_recipe
from rl.tasks import make_splits, write_splits

pytestmark = pytest.mark.job
SCRIPTS = ROOT / "03_grpo_trl_fsdp" / "scripts"
FEW = {
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 32,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "max_steps": 6,
    "save_steps": 2,
    "save_total_limit": 2,
    "eval_problems": 4,
    "eval_samples": 1,
    "eval_max_new_tokens": 8,
    "report_to": "none",
    "log_completions": False,
    "fsdp_config": {
        **read_recipe(SCRIPTS / "recipes/tiny.yaml")["fsdp_config"],
        "state_dict_type": "SHARDED_STATE_DICT",
    },
}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("data")
    return write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), folder)


def run_on_two_hosts(folder: Path, data: dict[str, Path], restored: Path | None = None, **settings):
    """A job of two hosts; `restored` is what S3 holds of checkpoints."""
    hosts = [ScriptJob(SCRIPTS / "train.py", folder / f"host-{rank}", data, FEW) for rank in (0, 1)]
    for host in hosts if restored else ():
        shutil.copytree(restored, host.checkpoints)
    run_hosts(hosts, **settings)
    return hosts


def sizes(folder: Path) -> dict[str, int]:
    """Bytes of each file below a folder."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("lora_rank", [0, 4])
def test_each_host_writes_its_part_and_together_they_are_gone_on_from(lora_rank, data, tmp_path):
    uninterrupted = run_on_two_hosts(tmp_path / "first", data, lora_rank=lora_rank)
    parts = [sizes(host.checkpoints / "checkpoint-4") for host in uninterrupted]
    for rank, part in enumerate(parts):
        shards = [f"{kind}_0/__{rank}_0.distcp" for kind in ("pytorch_model_fsdp", "optimizer")]
        assert {*shards, f"rng_state_{rank}.pth", f"complete-{rank}.json"} <= part.keys()
        assert not any(f"__{1 - rank}_" in name for name in part), "the other host's part"
        assert "model.safetensors" not in part and "pytorch_model_fsdp.bin" not in part
        kept = {path.name for path in uninterrupted[rank].checkpoints.glob("checkpoint-*")}
        assert kept == {"checkpoint-4", "checkpoint-6"}, "save_total_limit holds on every host"

    in_s3 = tmp_path / "s3"
    for host in uninterrupted:
        shutil.copytree(host.checkpoints / "checkpoint-4", in_s3 / "checkpoint-4", dirs_exist_ok=True)
    weights = sum(path.stat().st_size for path in (in_s3 / "checkpoint-4").glob("pytorch_model_fsdp_0/*"))
    model = sum(len(value) for value in uninterrupted[0].weights().values())
    assert weights < (0.6 if lora_rank else 1.6) * model, "all of it is there once, of adapters nothing else"

    second = run_on_two_hosts(tmp_path / "second", data, in_s3, lora_rank=lora_rank)
    assert "Going on from checkpoint-4." in second[0].log and second[0].steps() == [5, 6]
    assert second[0].weights() == uninterrupted[0].weights()
    assert second[0].history() == uninterrupted[0].history()

    (in_s3 / "checkpoint-4" / "optimizer_0" / "__1_0.distcp").unlink()
    third = run_on_two_hosts(tmp_path / "third", data, in_s3, lora_rank=lora_rank, max_steps=1)
    assert "Skipping checkpoint-4, which is not whole: optimizer_0/__1_0.distcp is missing" in third[0].log
    assert third[0].steps() == [1]


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_adapters_in_one_piece_are_gone_on_from_in_the_middle(quantization, data, tmp_path):
    """FULL_STATE_DICT, as the recipes with adapters have it: nothing of the frozen base is in a checkpoint."""
    if quantization:
        pytest.importorskip("bitsandbytes")
    whole = read_recipe(SCRIPTS / "recipes/tiny.yaml")["fsdp_config"]
    settings = {**FEW, "max_steps": 4, "lora_rank": 4, "quantization": quantization, "fsdp_config": whole}
    first = ScriptJob(SCRIPTS / "train.py", tmp_path / "first", data, settings).run(processes=2)
    files = sizes(first.checkpoints / "checkpoint-2")
    adapters = (first.model / "adapter" / "adapter_model.safetensors").stat().st_size
    model = sum(len(value) for value in first.weights().values())
    # torch.save adds a kilobyte to each small tensor, and the scales of 4-bit layers get into it.
    assert files["pytorch_model_fsdp.bin"] < 0.3 * model
    assert files["adapter_model.safetensors"] < 1.1 * adapters and "model.safetensors" not in files

    second = ScriptJob(SCRIPTS / "train.py", tmp_path / "second", data, settings)
    shutil.copytree(first.checkpoints / "checkpoint-2", second.checkpoints / "checkpoint-2")
    second.run(processes=2)
    assert second.steps() == [3, 4]
    for file in ("adapter/adapter_model.safetensors", "model.safetensors"):
        assert second.weights(file) == first.weights(file)
    assert second.history() == first.history()
