"""The QLoRA calculator against bytes that are really held, and the views of measurements, exports and gradients."""

import json

import pytest
from job.arguments import LoraArguments
from job.models import load_base, lora_config
from job.quantization import frozen_weights
from lesson.qlora_memory import (
    METHODS,
    ONE_GPU,
    method_table,
    plot_methods,
    smallest_instance,
    training_memory,
)
from lesson.quantization_views import (
    export_table,
    gradient_table,
    measurement_table,
    plot_exports,
    plot_measurements,
    read_report,
)
from rl.tasks import DataError
from workshop.checks.instances import gpu_bytes, training_instance_types
from workshop.checks.memory import GB, SHAPES, estimate

TABLES = 7 * 1100  # bytes in each layer: bitsandbytes keeps two tables of numbers beside each matrix


def rate(value: float, low: float, high: float) -> dict:
    return {"value": value, "low": low, "high": high, "n": 300, "decoding": "greedy"}


def measured(weights: int) -> dict:
    return {
        "weights_bytes": weights,
        "peak_bytes": {"imported": 600_000_000, "loaded": 610_000_000, "trained": 900_000_000},
        "step_seconds": 0.25,
        "loss": 2.5,
        "greedy": rate(0.9, 0.861, 0.929),
    }


MEASUREMENTS = {
    "parameters": 1000,
    "device": "cpu",
    "precisions": {"fp32": measured(4000), "bf16": measured(2000), "nf4": measured(680)},
}
EXPORTS = {
    "base": {"greedy": rate(0.1, 0.07, 0.14)},
    "exports": {
        "adapters": {"bytes": 1234, "greedy": rate(0.96, 0.93, 0.98), "note": "small"},
        "unmerged": {"bytes": 5678, "greedy": rate(0.0, 1e-18, 0.013), "note": "wrong"},
    },
}
GRADIENTS = {
    "trap": True,
    "bitsandbytes": "0.50.2",
    "checks": [
        {"model": "a", "way": "as it comes", "cosine": 0.5, "error": None},
        {"model": "b", "way": "as it comes", "cosine": None, "error": "shape is invalid"},
    ],
}


@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_the_calculator_knows_what_is_held(quantization):
    pytest.importorskip("bitsandbytes")
    from peft import get_peft_model

    policy, _ = load_base("asset:tiny", "bfloat16", quantization)
    policy = get_peft_model(policy, lora_config(LoraArguments(lora_rank=16)))
    count, held = frozen_weights(policy)
    trained = sum(parameter.nbytes for parameter in policy.parameters() if parameter.requires_grad)
    shape = SHAPES["tiny"]
    recipe = {"dtype": "bfloat16", "bf16": True, "lora_rank": 16, "quantization": quantization}
    recipe |= {"per_device_train_batch_size": 8, "max_completion_length": 96}
    predicted = estimate(shape, recipe, devices=1, sharded=False)
    adapters = shape.adapter_parameters(16) * 4
    assert count == shape.parameters
    assert trained == adapters == predicted.gradients == predicted.optimizer / 2
    tables = held - (predicted.parameters - adapters)
    assert 0 <= tables <= shape.layers * TABLES
    assert bool(tables) == bool(quantization)


def test_the_methods_differ_as_they_should():
    full, lora, qlora = (training_memory("Llama-3.1-8B", method) for method in METHODS)
    assert full.parameters + full.gradients + full.optimizer == SHAPES["Llama-3.1-8B"].parameters * 16
    assert lora.parameters > 2.5 * qlora.parameters > 10 * qlora.optimizer
    assert lora.optimizer == qlora.optimizer < full.optimizer / 100
    more = training_memory("Llama-3.1-8B", "QLoRA, NF4", lora_rank=64, max_completion_length=2048)
    assert more.optimizer == 4 * qlora.optimizer and more.kv_cache > 3 * qlora.kv_cache


def test_the_smallest_gpu_that_holds_a_model():
    assert smallest_instance(training_memory("Llama-3.2-1B", "QLoRA, NF4")) == "ml.g4dn.xlarge"
    assert smallest_instance(training_memory("Llama-3.3-70B", "QLoRA, NF4")) == "ml.p5.4xlarge"
    assert smallest_instance(training_memory("Llama-3.3-70B", "LoRA, bf16")) is None
    assert list(ONE_GPU.values()) == sorted(ONE_GPU.values())


def test_the_instances_exist_and_are_no_larger_than_the_sdk_says():
    assert set(ONE_GPU) <= training_instance_types()
    known = {name: gpu_bytes(name, "us-east-1") for name in ONE_GPU}
    assert known["ml.g4dn.xlarge"]
    # A "24 GB" GPU of AWS has 22,888 MiB, a hair less.
    assert all(
        ONE_GPU[name] * GB <= 1.001 * size < 1.1 * ONE_GPU[name] * GB for name, size in known.items() if size
    )


def test_the_table_and_the_plot_show_every_model():
    text = repr(method_table(("Qwen3-8B", "Llama-3.3-70B")))
    assert "Qwen3-8B" in text and "more than one GPU" in text and "QLoRA, NF4" in text
    assert "Llama-3.3-70B, QLoRA, NF4" in repr(plot_methods(("Llama-3.3-70B",)))
    assert plot_methods(("Qwen3-8B",))._repr_png_().startswith(b"\x89PNG")


def test_reports_are_read_back_and_missed_by_name(tmp_path):
    (tmp_path / "exports.json").write_text(json.dumps(EXPORTS))
    assert read_report(tmp_path, "exports.json") == EXPORTS
    with pytest.raises(DataError, match=r"no measurements.json .*there: exports.json"):
        read_report(tmp_path, "measurements.json")
    (tmp_path / "gradients.json").write_text("{")
    with pytest.raises(DataError, match="damaged"):
        read_report(tmp_path, "gradients.json")


def test_measurements_are_shown():
    text = repr(measurement_table({"tiny": MEASUREMENTS, "small": MEASUREMENTS}))
    assert all(part in text for part in ("nf4", "680", "0.68", "900 MB", "0.900 [0.861, 0.929]", "small"))
    plot = plot_measurements({"tiny": MEASUREMENTS, "small": MEASUREMENTS})
    assert "small: fp32 0.004 MB, 0.25 s" in repr(plot)
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_lost_training_is_marked():
    assert "0.960 [0.930, 0.980]" in repr(export_table(EXPORTS))
    plot = plot_exports(EXPORTS)
    labels = [text.get_text() for text in plot.figure.axes[0].texts]
    assert "0.960" in labels and "0.000: training lost" in labels
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_gradients_say_where_there_is_no_trap():
    assert "on a CPU with AVX512-BF16" in repr(gradient_table(GRADIENTS))
    assert "backward fails: shape is invalid" in repr(gradient_table(GRADIENTS))
    assert "there is no trap" in repr(gradient_table(GRADIENTS | {"trap": False}))
