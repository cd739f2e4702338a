"""04's measuring jobs in real processes of the job's environment: precisions, exports, gradients."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import ROOT, ScriptJob, module_python, unsloth_preload
from job.models import load_base
from lesson.quantization_views import export_table, gradient_table, measurement_table, read_report
from rl.tasks import make_splits, write_splits
from transformers import AutoModelForCausalLM
from workshop.checks.memory import SHAPES

pytestmark = pytest.mark.job
SCRIPTS = ROOT / "04_grpo_unsloth" / "scripts"
TINY = SHAPES["tiny"]
FEW = {"eval_problems": 4, "eval_max_new_tokens": 16}
TRAINING = {
    "max_steps": 4,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "eval_samples": 1,
    "max_completion_length": 32,
    "learning_rate": 1e-2,
    "warmup_steps": 0,
    "report_to": "none",
}


class Scripts:
    """Runs scripts of the module one after the other, each with folders of its own."""

    def __init__(self, folder: Path):
        self.folder, self.python = folder, module_python(SCRIPTS)
        self.data = write_splits(make_splits("chain_sum", {"train": 64, "test": 8}), folder / "channels")

    def run(
        self,
        name: str,
        script: str,
        *,
        channels: dict[str, Path] | None = None,
        recipe: str | None = "tiny",
        few: dict[str, Any] = FEW,
        fails: bool = False,
        **settings: Any,
    ) -> ScriptJob:
        """The ended job called `name`; with a recipe also the settings `few`."""
        job = ScriptJob(
            SCRIPTS / script,
            self.folder / name,
            {**self.data, **(channels or {})},
            few if recipe else {},
            recipe,
            self.python,
            # measure.py itself forks, and is asked what it imports.
            None if script == "measure.py" else unsloth_preload(self.python),
            timeout=600,
        )
        return job.run(fails=fails, **settings)


@pytest.fixture(scope="module")
def scripts(tmp_path_factory) -> Scripts:
    return Scripts(tmp_path_factory.mktemp("jobs"))


@pytest.fixture(scope="module")
def trained(scripts) -> Path:
    """A model whose adapters have moved, in four steps that are far too large."""
    return scripts.run("train", "train.py", **TRAINING).model


@pytest.fixture(scope="module")
def exports(scripts, trained) -> ScriptJob:
    return scripts.run("export", "export.py", channels={"model": trained})


@pytest.mark.timeout(1800)
def test_each_precision_is_measured(scripts):
    job = scripts.run("measure", "measure.py", few={}, per_device_train_batch_size=8)
    report = read_report(job.output, "measurements.json")
    assert (report["base_model"], report["parameters"], report["device"]) == (
        "asset:tiny",
        TINY.parameters,
        "cpu",
    )
    assert report["batch"][0] == 8 and report["batch"][1] <= 64
    found = report["precisions"]
    assert [item["weights_bytes"] for item in found.values()][:2] == [
        4 * TINY.parameters,
        2 * TINY.parameters,
    ]
    packed = TINY.layers * TINY.linear_weights
    least = 2 * (TINY.parameters - packed) + packed // 2
    assert least < found["nf4"]["weights_bytes"] < 1.2 * least  # with its scales and tables
    adapters = 4 * TINY.adapter_parameters(16)
    for item in found.values():
        assert item["state_bytes"]["adapters"] == item["state_bytes"]["gradients"] == adapters
        assert item["state_bytes"]["optimizer"] == pytest.approx(2 * adapters, rel=0.01)
        peak = item["peak_bytes"]
        assert 100e6 < peak["imported"] <= peak["loaded"] <= peak["trained"]
        assert item["step_seconds"] > 0 and item["timed_steps"] == 2
    # 16 bits hardly change what a model says, 4 bits a little.
    change = {name: abs(found[name]["loss"] - found["fp32"]["loss"]) for name in ("bf16", "nf4")}
    assert change["bf16"] < 0.02 < change["nf4"] < 0.5
    assert "nf4" in repr(measurement_table({"tiny": report}))


def test_damaged_problems_are_named_before_a_model_is_loaded(scripts, tmp_path):
    (tmp_path / "test.jsonl").write_text('{"question": 1}\n')
    job = scripts.run("damaged", "measure.py", few={}, channels={"test": tmp_path}, fails=True)
    assert "Unsloth" not in job.log
    assert job.failure.read_text().startswith("DataError: ")


def test_an_error_in_one_precision_is_the_one_reported(scripts):
    job = scripts.run("unknown", "measure.py", few={}, base_model="asset:huge", fails=True)
    assert job.failure.read_text().startswith("ModelNotFound: There is no asset 'huge'")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 103)[None]).logits.float()


def test_right_exports_keep_the_training_and_wrong_ones_do_not(exports, trained):
    """Measured by what the reloaded models compute, which says more than four problems."""
    base = logits(load_base("asset:tiny")[0])
    goal = logits(AutoModelForCausalLM.from_pretrained(trained))
    moved = (goal - base).norm()
    assert moved > 0.1 * base.norm()

    def distance(name: str, **options: str) -> float:
        return (logits(AutoModelForCausalLM.from_pretrained(exports.model / name, **options)) - goal).norm()

    assert distance("merged_16bit") < 0.1 * moved
    assert distance("gguf_q8_0", gguf_file="model-Q8_0.gguf") < 0.2 * moved
    assert distance("unmerged") > 0.9 * moved
    assert distance("wrapped") > 0.9 * moved


def test_exports_are_reported_with_their_sizes(exports, trained):
    report = read_report(exports.output, "exports.json")
    sizes = {name: found["bytes"] for name, found in report["exports"].items()}
    ways = "adapters merged_16bit gguf_q8_0 packed_later merged_into_4bit unmerged wrapped"
    assert list(sizes) == ways.split()
    for name, size in sizes.items():
        assert size == sum(
            path.stat().st_size for path in (exports.model / name).rglob("*") if path.is_file()
        )
    assert sizes["gguf_q8_0"] < 0.6 * sizes["merged_16bit"]
    assert sizes["adapters"] == sum(path.stat().st_size for path in (trained / "adapter").iterdir())
    assert all(len(found["right"]) == 4 and found["note"] for found in report["exports"].values())
    assert len(report["base"]["right"]) == 4
    text = "".join(path.read_text() for path in (exports.model / "adapters").glob("*.json"))
    assert str(exports.folder) not in text and str(trained) not in text
    assert "merged_into_4bit" in repr(export_table(report))


def test_a_model_without_adapters_is_refused(scripts, tmp_path):
    model, tokenizer = load_base("asset:tiny")
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    job = scripts.run("no-adapters", "export.py", channels={"model": tmp_path}, fails=True)
    assert "no folder 'adapter'" in job.failure.read_text()


def test_gradients_are_wrong_without_the_cure_and_right_with_it(scripts):
    report = read_report(scripts.run("gradients", "gradient_check.py", recipe=None).output, "gradients.json")
    from bitsandbytes.functional import has_avx512bf16

    assert report["trap"] == has_avx512bf16()
    by_way: dict[str, list[dict]] = {}
    for check in report["checks"]:
        by_way.setdefault(check["way"], []).append(check)
    assert [len(checks) for checks in by_way.values()] == [2, 2, 2]
    for way in ("with the cure", "by Unsloth"):
        assert all(check["error"] is None and check["cosine"] > 0.999 for check in by_way[way]), way
    plain, with_biases = by_way["as it comes"]
    if report["trap"]:
        assert plain["cosine"] < 0.9 and with_biases["error"]
    else:
        assert plain["cosine"] > 0.999 and with_biases["cosine"] > 0.999
    assert json.dumps(report) and "with the cure" in repr(gradient_table(report))
