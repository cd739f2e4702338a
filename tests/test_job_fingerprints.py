"""What a job's checkpoints say that they are made of: what is another job's, and what may change from one to the next."""

import dataclasses
import json

import pytest
from job.arguments import (
    EvaluationArguments,
    LoraArguments,
    ModelArguments,
    QuantizationArguments,
    RewardArguments,
    RewardModelArguments,
)
from job.checkpoints import CheckpointError, mark_complete, newest_complete
from job.fingerprints import fingerprints, model_fingerprint
from tiny import tiny_model


@dataclasses.dataclass
class Job(
    ModelArguments,
    LoraArguments,
    QuantizationArguments,
    RewardArguments,
    RewardModelArguments,
    EvaluationArguments,
):
    """A script with everything that fingerprints look at."""


ROWS = [{"question": "1 + 1", "answer": "2"}]
CHANGES = {
    "base": {"base_model": "asset:tiny-tools"},
    "adapters": {"lora_alpha": 64},
    "rewards": {"verifier": "math"},
    "reward model": {"reward_model": "asset:tiny"},
}


@pytest.mark.parametrize("kind", CHANGES)
def test_what_a_job_is_made_of_and_what_may_change(kind):
    known = fingerprints(Job(lora_rank=8), ROWS)
    assert known.keys() == {"data", *CHANGES}
    changed = fingerprints(Job(lora_rank=8, **CHANGES[kind]), ROWS)
    assert {name for name in known if known[name] != changed[name]} == {kind}
    assert fingerprints(Job(lora_rank=8, dtype="bfloat16", eval_samples=9), ROWS) == known
    assert fingerprints(Job(lora_rank=8), [*ROWS, *ROWS])["data"] != known["data"]
    assert fingerprints(Job(lora_rank=8), ROWS, reward_weights=[1, 0.5])["rewards"] == (
        "accuracy, format weighed 1, 0.5 by number"
    )
    assert fingerprints(Job(lora_rank=8, quantization="nf4"), ROWS)["base"] == f"{known['base']} in nf4"


def test_a_job_names_what_it_has_alone():
    assert fingerprints(ModelArguments(), ROWS, seed=7).keys() == {"data", "seed", "base"}


def test_another_seed_is_refused(tmp_path):
    (tmp_path / "checkpoint-100").mkdir()
    mark_complete(tmp_path / "checkpoint-100", fingerprints(Job(), ROWS, seed=42))
    assert newest_complete(tmp_path, fingerprints=fingerprints(Job(), ROWS, seed=42))
    with pytest.raises(CheckpointError, match=r"with seed 42, this job has 43: .* or the seed back"):
        newest_complete(tmp_path, fingerprints=fingerprints(Job(), ROWS, seed=43))


def test_own_code_and_other_weights_under_the_same_name_are_seen(tmp_path, monkeypatch):
    model, _ = tiny_model()
    model.save_pretrained(tmp_path / "model")
    monkeypatch.setenv("SM_CHANNEL_MODEL", str(tmp_path / "model"))
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "my_fingerprints.py").write_text("def same(given, gold):\n    return given == gold\n")
    job = Job(base_model="channel:model", verifier="my_fingerprints.same")
    before = fingerprints(job, ROWS)
    assert before["rewards"].startswith("accuracy, format by my_fingerprints.same (own code ")

    with open(tmp_path / "my_fingerprints.py", "a") as file:
        file.write("    # or nearly\n")
    tiny_model(seed=1)[0].save_pretrained(tmp_path / "model")
    after = fingerprints(job, ROWS)
    assert {name for name in before if before[name] != after[name]} == {"rewards", "base"}


def test_adapters_on_another_base_are_another_model(tmp_path, monkeypatch):
    monkeypatch.setenv("SM_CHANNEL_MODEL", str(tmp_path))
    (tmp_path / "adapter_model.safetensors").write_bytes(b"the same adapters")
    seen = set()
    for name in ("adapter_config.json", "base_model.json"):  # the second wins, where it is there
        for base in ("asset:tiny", "hub:a/b"):
            (tmp_path / name).write_text(json.dumps({"base": base}))
            seen.add(model_fingerprint("channel:model"))
    assert len(seen) == 4


def test_weights_that_differ_in_the_middle_of_a_file_alone_are_another_model(tmp_path, monkeypatch):
    monkeypatch.setenv("SM_CHANNEL_MODEL", str(tmp_path))
    weights, seen = bytearray(6 * 2**20), set()
    for changed in (0, 1):
        weights[3 * 2**20 - 1000 : 4 * 2**20] = bytes([changed]) * (2**20 + 1000)
        (tmp_path / "model.safetensors").write_bytes(weights)
        seen.add(model_fingerprint("channel:model"))
    assert len(seen) == 2
