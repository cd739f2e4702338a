"""FSDP2 on CPU: with compat's help parameters are sharded and trained the same; without it they are not."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from harness import run_two_processes
from tiny import tiny_model

TESTS = Path(__file__).parent
pytestmark = pytest.mark.job


@pytest.fixture(scope="module")
def probe(tmp_path_factory) -> Callable[..., list[dict]]:
    """probe(*arguments, script): the two processes' records of one run of a probe."""

    def run(*arguments: str, script: str = "fsdp_probe.py") -> list[dict]:
        output = run_two_processes(TESTS / script, *arguments, folder=tmp_path_factory.mktemp("probe"))
        lines = [line.removeprefix("PROBE ") for line in output.splitlines() if line.startswith("PROBE ")]
        assert len(lines) == 2, output
        return [json.loads(line) for line in lines]

    return run


@pytest.fixture(scope="module")
def with_help(probe) -> list[dict]:
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
def test_accelerate_still_needs_the_adapter(probe):
    """When this fails, accelerate shards on CPU by itself: delete scripts/compat/fsdp_on_cpu.py and its callers."""
    assert not any(record["any"] for record in probe())


@pytest.mark.timeout(240)
def test_transformers_knows_that_accelerate_sharded_the_model(with_help):
    """By this generate() keeps the processes in step: one that ended early would leave the others waiting for weights."""
    assert all(record["managed"] for record in with_help)


@pytest.mark.timeout(240)
def test_adapters_are_merged_into_a_sharded_base_and_handed_on_whole(probe):
    """When the base in 4 bits takes them in, too: take the refusal out of job/forms.py."""
    for record in probe(script="merge_probe.py"):
        assert record["None"]["changed"] > 0.01
        assert record["None"]["names"] and record["None"]["largest_difference"] < 1e-6
        if "nf4" in record:
            assert record["nf4"]["error"] == "'DTensor' object has no attribute 'quant_state'"
