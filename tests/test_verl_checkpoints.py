"""A checkpoint of adapters, in shards of verl's own engine, becomes the model that was trained.

Whole weights are merged in every job of tests/test_grpo_verl.py, and Megatron's exports are opened there; adapters are
trained by recipes for GPUs alone.
"""

import pytest
from harness import answer_of
from verl_recipes import MODULE, ON_CPU

pytestmark = pytest.mark.job
ADAPTERS = """
import functools, json, sys
from pathlib import Path
import parallel_engines, ray, torch
from parallel_processes import in_processes
from verl.workers.config import HFModelConfig
from verl_checkpoints import merged_model

lora = {"lora_rank": 4, "lora_alpha": 8, "target_modules": "all-linear", "lora": {"merge": True}}
parallel_engines.HFModelConfig = functools.partial(HFModelConfig, **lora)
layout = parallel_engines.Layout("two shards", "fsdp2")
batch = parallel_engines.Batch([torch.arange(5, 45)] * 2, [torch.ones(40)] * 2, micro_batch=1)
checkpoint = Path(sys.argv[2], "global_step_60")

def loss(model_output, data, dp_group=None):
    return -model_output["log_probs"].values().sum(), {}

def trained():
    torch.manual_seed(0)
    engine = parallel_engines.new_engine(layout, sys.argv[1], 1)
    engine.initialize()
    for _ in range(60):
        with engine.train_mode():
            engine.optimizer_zero_grad()
            engine.forward_backward_batch(parallel_engines.data_of(layout, batch), loss)
            engine.optimizer_step()
    engine.save_checkpoint(str(checkpoint / "actor"), global_step=60)
    weights, _ = engine.get_per_tensor_param()
    return {name: value.float().clone() for name, value in weights}

pushed = in_processes(2, trained)[0]  # what the rollout gets, in bfloat16: adapters added to the weights
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
model = merged_model(checkpoint, "float32")
base = {name: value.clone() for name, value in model.get_base_model().state_dict().items()}
kind, opened = type(model).__name__, model.merge_and_unload().state_dict()
matrices = [name for name in pushed if "_proj.weight" in name]
print("ANSWER " + json.dumps({
    "kind": kind,
    "names": sorted(pushed.keys() ^ opened.keys()),
    "difference": max((opened[name] - value).abs().max().item() for name, value in pushed.items()),
    "least_change": min((opened[name] - base[name.replace(".weight", ".base_layer.weight")]).abs().max().item() for name in matrices),
    "matrices": len(matrices),
}))
"""


@pytest.mark.timeout(900)  # the environment may have to be built first
def test_adapters_are_merged_out_of_their_shards(tmp_path):
    folder = MODULE.parents[1] / "scripts" / "assets" / "tiny"
    answer = answer_of(
        ADAPTERS, str(folder), str(tmp_path), scripts=MODULE, **ON_CPU, VERL_ENGINE_DEVICE="cuda"
    )
    assert answer["kind"] == "PeftModelForCausalLM"
    assert answer["names"] == [] and answer["matrices"] == 7 * 4  # those of each layer
    assert answer["difference"] < 0.005 < 0.01 < answer["least_change"], answer
