"""FSDP2 on CPU: with compat's help parameters are sharded and trained the same; without it they are not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import tiny_model

TESTS = Path(__file__).parent
pytestmark = pytest.mark.job


def probe(*arguments: str, script: str = "fsdp_probe.py") -> list[dict]:
    """The two processes' records of one run of a probe."""
    process = subprocess.Popen(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
        + [str(TESTS / script), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("ACCELERATE_")},
            "PYTHONPATH": os.pathsep.join((str(TESTS), str(TESTS.parent / "scripts"))),
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        },
    )
    try:
        output, _ = process.communicate(timeout=180)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert process.returncode == 0, output
    lines = [line.removeprefix("PROBE ") for line in output.splitlines() if line.startswith("PROBE ")]
    assert len(lines) == 2, output
    return [json.loads(line) for line in lines]


@pytest.fixture(scope="module")
def with_help() -> list[dict]:
    return probe("adapter")


@pytest.mark.timeout(240)
def test_two_processes_hold_half_each_and_train_as_one_would(with_help):
    first, second = with_help
    assert first["type"] == "DistributedType.FSDP" and first["sharded"] and second["sharded"]
    assert first["held"] + second["held"] == first["whole"]
    assert first["held"] == pytest.approx(first["whole"] / 2, rel=0.02)

    model, _ = tiny_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    tokens = torch.arange(24).reshape(4, 6) + 10
    losses = []
    for _ in range(3):
        optimizer.zero_grad()
        loss = model(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[2] < losses[0]
    assert first["losses"] == pytest.approx(losses, abs=1e-5)


@pytest.mark.timeout(240)
def test_accelerate_still_needs_the_adapter():
    """When this fails, accelerate shards on CPU by itself: delete scripts/compat/fsdp_on_cpu.py and its callers."""
    assert not any(record["any"] for record in probe())


@pytest.mark.timeout(240)
def test_transformers_knows_that_accelerate_sharded_the_model(with_help):
    """By this generate() keeps the processes in step: one that ended early would leave the others waiting for weights."""
    assert all(record["managed"] for record in with_help)


@pytest.mark.timeout(240)
def test_adapters_are_merged_into_a_sharded_base_and_handed_on_whole():
    """When the base in 4 bits takes them in, too: take the refusal out of job/forms.py."""
    for record in probe(script="merge_probe.py"):
        assert record["None"]["changed"] > 0.01
        assert record["None"]["names"] and record["None"]["largest_difference"] < 1e-6
        if "nf4" in record:
            assert record["nf4"]["error"] == "'DTensor' object has no attribute 'quant_state'"
