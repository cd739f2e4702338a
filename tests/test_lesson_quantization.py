"""The QLoRA calculator against bytes that are really held, and the views of measurements, exports and gradients."""

import json

import numpy as np
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
    plot_packed,
    read_report,
)
from rl.tasks import DataError
from workshop.checks.instances import gpu_bytes, training_instance_types
from workshop.checks.memory import GB, SHAPES, estimate

TABLES = 7 * 1100  # bytes in each layer: bitsandbytes keeps two tables of numbers beside each matrix


def verdicts(right: int) -> list[bool]:
    """Of 100 problems, the first so many right."""
    return [number < right for number in range(100)]


def measured(weights: int) -> dict:
    return {
        "weights_bytes": weights,
        "peak_bytes": {"imported": 600_000_000, "loaded": 810_000_000, "trained": 900_000_000},
        "step_seconds": 0.25,
        "timed_steps": 2,
        "loss": 2.5,
    }


MEASUREMENTS = {
    "parameters": 1000,
    "device": "cpu",
    "precisions": {"fp32": measured(4000), "bf16": measured(2000), "nf4": measured(680)},
}
EXPORTS = {
    "base": {"right": verdicts(10)},
    "exports": {
        "adapters": {"bytes": 1234, "right": verdicts(96), "note": "small"},
        "merged": {"bytes": 2345, "right": verdicts(94), "note": "whole"},
        "unmerged": {"bytes": 5678, "right": verdicts(12), "note": "wrong"},
        "wrapped": {"bytes": 5678, "right": verdicts(0), "note": "wrong too"},
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
    assert smallest_instance(training_memory("Llama-3.2-1B", "QLoRA, NF4")) == "ml.g6.xlarge"
    assert smallest_instance(training_memory("Llama-3.3-70B", "QLoRA, NF4")) == "ml.p5.4xlarge"
    assert smallest_instance(training_memory("Llama-3.3-70B", "LoRA, bf16")) is None
    assert list(ONE_GPU.values()) == sorted(ONE_GPU.values())


def test_the_instances_exist_and_are_no_larger_than_the_sdk_says():
    assert set(ONE_GPU) <= training_instance_types()
    known = {name: gpu_bytes(name, "us-east-1") for name in ONE_GPU}
    assert known["ml.g6.xlarge"]
    # A "24 GB" GPU of AWS has 22,888 MiB, a hair less.
    assert all(
        ONE_GPU[name] * GB <= 1.001 * size < 1.1 * ONE_GPU[name] * GB for name, size in known.items() if size
    )


def test_the_table_and_the_plot_show_every_model():
    text = repr(method_table(("Qwen3-8B", "Llama-3.3-70B")))
    assert "Qwen3-8B" in text and "more than one GPU" in text and "QLoRA, NF4" in text
    assert "ml.g6.xlarge, 24 GB" in text
    assert "Llama-3.3-70B, QLoRA, NF4" in repr(plot_methods(("Llama-3.3-70B",)))
    assert plot_methods(("Qwen3-8B",))._repr_png_().startswith(b"\x89PNG")


def test_the_table_and_the_plot_say_the_same():
    total = repr(plot_methods(("Qwen3-8B",), ("QLoRA, NF4",))).rsplit(" ", 1)[1]
    (line,) = [line for line in repr(method_table(("Qwen3-8B",))).splitlines() if "QLoRA" in line]
    assert float(total) == pytest.approx(float(line.split("ml.")[0].split()[-1]), abs=0.06)


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
    assert all(part in text for part in ("nf4", "680", "0.68", "810 MB", "900 MB", "2.500", "small"))
    plot = plot_measurements({"tiny": MEASUREMENTS, "small": MEASUREMENTS})
    assert "small: fp32 0.004 MB, at most 900 MB held, 0.25 s" in repr(plot)
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_a_time_that_is_of_one_step_only_is_said():
    slow = {
        **MEASUREMENTS,
        "precisions": {**MEASUREMENTS["precisions"], "bf16": {**measured(2000), "timed_steps": 0}},
    }
    assert "too slow" not in repr(measurement_table({"tiny": MEASUREMENTS}))
    assert "small in bf16: the time is that of the first step" in repr(
        measurement_table({"tiny": MEASUREMENTS, "small": slow})
    )


def test_lost_training_is_marked():
    text = repr(export_table(EXPORTS))
    assert "0.960 [0.902, 0.984]" in text and "86 fixed, 0 broken, p < 0.001" in text
    assert "0 fixed, 2 broken, p = 0.500" in text  # merged, against the adapters
    plot = plot_exports(EXPORTS)
    labels = [text.get_text() for text in plot.figure.axes[0].texts]
    # unmerged has two more right than the base, which is chance.
    assert {"0.960", "0.940", "0.120: training lost", "0.000: training lost"} <= set(labels)
    assert plot._repr_png_().startswith(b"\x89PNG")


def test_gradients_say_where_there_is_no_trap():
    assert "on a CPU with AVX512-BF16" in repr(gradient_table(GRADIENTS))
    assert "backward fails: shape is invalid" in repr(gradient_table(GRADIENTS))
    assert "there is no trap" in repr(gradient_table(GRADIENTS | {"trap": False}))


def test_an_outlier_spoils_its_block():
    levels = np.linspace(-1, 1, 16)

    def through(block: np.ndarray) -> np.ndarray:
        scale = np.abs(block).max()
        return levels[np.abs(block[:, None] / scale - levels).argmin(axis=1)] * scale

    block = np.linspace(-0.1, 0.1, 64)
    spoiled = np.append(block[:-1], 2.0)
    plot = plot_packed({"plain": block, "with an outlier": spoiled}, through)
    assert "plain: error " in repr(plot) and "with an outlier: error " in repr(plot)
    assert "2 levels in use" in repr(plot)
    assert plot._repr_png_().startswith(b"\x89PNG")
