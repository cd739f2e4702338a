"""verl's Ulysses and Megatron engines on CPU processes: each layout is equal to one process, and nothing is replaced in vain.

All of it runs in the job's environment, in forks of one process: what takes seconds to import is imported once.
"""

import json
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
from harness import ScriptJob, answer_of, module_python
from lesson.parallel import bubble, equality_table, held_parts, idle_share, read_parallel, traffic_table
from parallel_traffic import CALLS, recorded_traffic
from verl_recipes import MODULE, ON_CPU

pytestmark = pytest.mark.job
TOLERANCE = 1e-4  # of log-probabilities, and of gradients up to 7: what float32 adds up in another order
LAYERS, MICRO_BATCHES = 4, 4
FOUR = SimpleNamespace(size=lambda: 4)  # a group of four processes
ALONE, MEGATRON = "one process, FSDP2", "one process, Megatron"
MEGATRON_VARIABLES = {**ON_CPU, "VERL_ENGINE_DEVICE": "cuda", "VERL_CPU_ENGINE": "dp"}
# Leaves out one replacement, or one method that runs on the CPU, and takes the engine through all that a job asks of it.
LEFT_OUT = """
import json, sys, tempfile
import torch
import parallel_engines
from parallel_processes import in_processes
from verl_cpu import megatron

del sys.modules["megatron"]  # kept out, since the variable names the other engine; each attempt loads it with its own gap
LAYOUT = parallel_engines.Layout("pipeline", "megatron", pipeline=2)
TOKENS = [torch.arange(5, 45)] * 4
WEIGHTS = [torch.ones(40)] * 4
BATCH = parallel_engines.Batch(TOKENS, WEIGHTS, micro_batch=1)

def loss(model_output, data, dp_group=None):
    return -model_output["log_probs"].values().sum(), {}

def attempt(kind, left_out, folder):
    if kind == "name":
        megatron.REPLACED = tuple(one for one in megatron.REPLACED if one.name != left_out)
    elif kind == "method":
        megatron.ON_CPU = tuple(one for one in megatron.ON_CPU if one != left_out)
    megatron.register()
    engine = parallel_engines.new_engine(LAYOUT, sys.argv[1], 1)
    engine.initialize()
    with engine.train_mode():
        engine.optimizer_zero_grad()
        engine.forward_backward_batch(parallel_engines.data_of(LAYOUT, BATCH), loss)
        engine.optimizer_step()
        engine.lr_scheduler_step()
    engine.save_checkpoint(folder, global_step=1)
    engine.load_checkpoint(folder, del_local_after_load=False)
    return len(list(engine.get_per_tensor_param()[0]))

answer = {}
cases = [("nothing", "")] + [("name", one.name) for one in megatron.REPLACED] + [("method", one) for one in megatron.ON_CPU]
for kind, left_out in cases:
    try:
        answer[f"{kind} {left_out}"] = in_processes(2, attempt, kind, left_out, tempfile.mkdtemp())
    except RuntimeError as error:
        answer[f"{kind} {left_out}"] = str(error).strip().splitlines()[-1]
print("ANSWER " + json.dumps(answer))
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> dict:
    job = ScriptJob(
        MODULE / "measure_parallel.py",
        tmp_path_factory.mktemp("parallel"),
        recipe=None,
        python=module_python(MODULE),
    )
    return read_parallel(job.run().output / "parallel.json")


@pytest.mark.timeout(900)  # the environment may have to be built first
def test_every_layout_is_equal_to_one_process(report):
    assert len(report["layouts"]) == 7
    for name, found in report["layouts"].items():
        if name == "Ulysses 2 with sdpa":
            continue
        assert found["log_prob_difference"] < TOLERANCE, name
        assert found["gradient_difference"] < TOLERANCE < 1 < found["largest_gradient"], name
        assert found["gradients"] == 50, name
        assert found["grad_norm"] == pytest.approx(report["layouts"][ALONE]["grad_norm"], rel=1e-5), name


def test_what_is_done_by_hand_is_equal_to_the_whole_model(report):
    for name, found in report["by_hand"].items():
        assert found["gradients"] == 50, name
        assert found["gradient_difference"] < 1e-5 < 1 < found["largest_gradient"], name


def test_ulysses_with_sdpa_exchanges_nothing_and_is_another_model(report):
    """Should verl or transformers mend that, the recipe check no longer has to refuse it (verl_layout.REACH_ULYSSES)."""
    found = report["layouts"]["Ulysses 2 with sdpa"]
    assert "all-to-all" not in found["sent"][0]
    assert found["log_prob_difference"] > 1 and found["gradient_difference"] > 0.1


def test_ulysses_exchanges_in_every_attention(report):
    """Query, key, value and output, in each layer and micro batch, forward and backward."""
    for sent in report["layouts"]["Ulysses 2"]["sent"]:
        assert sent["all-to-all"]["calls"] == 4 * LAYERS * MICRO_BATCHES * 2
        assert sent["all-to-all"]["megabytes"] == pytest.approx(2.783 / 2, abs=0.01)  # half stays where it is


def test_tensor_parallel_sums_twice_in_each_layer_and_pass(report):
    """Megatron-LM (https://arxiv.org/abs/1909.08053, section 3): behind attention and behind the MLP, and once more each going back."""
    for sent in report["layouts"]["tensor 2"]["sent"]:
        assert sent.keys() == {"all-reduce"}
        assert sent["all-reduce"]["calls"] >= 4 * LAYERS * MICRO_BATCHES


def test_a_pipeline_sends_activations_on_and_gradients_back(report):
    one, other = report["layouts"]["pipeline 2"]["sent"]
    for sent in (one, other):
        assert sent["send"]["calls"] == 2 * MICRO_BATCHES  # a tensor, and its shape before it
    assert one["send"]["megabytes"] < report["layouts"]["tensor 2"]["sent"][0]["all-reduce"]["megabytes"] / 5


def test_each_process_holds_its_part(report):
    whole = sum(report["layouts"][ALONE]["parameters"])
    assert sum(report["layouts"]["Ulysses 2"]["parameters"]) == whole
    held = report["layouts"]["tensor 2"]["held"]
    assert all(one["module.decoder.layers.0.mlp.linear_fc1.weight"] == [288, 96] for one in held)
    stages = report["layouts"]["pipeline 2"]["held"]
    assert [sum("mlp.linear_fc1.weight" in name for name in one) for one in stages] == [2, 2]
    both = report["layouts"]["tensor 2 x pipeline 2"]["parameters"]
    assert len(both) == 4 and max(both) < 0.3 * whole


def test_a_pipeline_waits_for_its_first_and_last_micro_batch(report):
    for count, stages in report["pipeline"].items():
        assert [len(stage) for stage in stages] == [2 * int(count)] * 2
        # On a busy machine stages wait for other programs as well, so that only the least is certain.
        assert idle_share(stages) > 0.5 * bubble(2, int(count))
        first = [min(interval["start"] for interval in stage) for stage in stages]
        assert first[1] > min(interval["end"] for interval in stages[0])  # nothing to do before that
        assert first[0] < first[1]


def test_tables_name_every_layout(report):
    layouts = ("Ulysses 2", "tensor 2", "pipeline 2")
    assert all(name in str(equality_table(report)) for name in list(report["layouts"])[1:])
    assert all(name in str(traffic_table(report, layouts)) for name in layouts)
    rows = held_parts(report, layouts)
    assert [round(sum(parts.values())) for parts in rows.values()] == [238, 238, 238, 238, 253, 254]


@pytest.mark.timeout(900)
def test_nothing_is_replaced_that_a_cpu_has(tmp_path):
    folder = MODULE.parents[1] / "scripts" / "assets" / "tiny-even"
    answer = answer_of(LEFT_OUT, str(folder), scripts=MODULE, **MEGATRON_VARIABLES)
    assert answer.pop("nothing ") == [51, 51]
    missed = {left_out: found for left_out, found in answer.items() if not isinstance(found, list)}
    assert missed.keys() == answer.keys(), json.dumps(answer, indent=1)


def test_megatron_is_loaded_for_its_own_recipes_alone():
    code = (
        "import json, sys, verl.workers.engine; print('ANSWER ' + json.dumps('megatron.core' in sys.modules))"
    )
    for engine, loaded in (("dp", False), ("megatron", True)):
        assert answer_of(code, scripts=MODULE, **{**MEGATRON_VARIABLES, "VERL_CPU_ENGINE": engine}) is loaded


@pytest.mark.parametrize(
    ("method", "given", "others_get"),
    [
        ("allreduce", 8, 8),
        ("allgather", 8, 8),
        ("all_to_all_single", 8, 6),
        ("alltoall", 8, 6),
        ("reduce_scatter_single", 8, 6),
        ("send", 8, 8),
    ],
)
def test_what_a_process_keeps_is_not_counted_as_sent(monkeypatch, method, given, others_get):
    monkeypatch.setattr(dist.ProcessGroup, method, lambda *arguments: None)
    with recorded_traffic() as sent:
        tensor = torch.zeros(given, dtype=torch.uint8)
        getattr(dist.ProcessGroup, method)(FOUR, *[tensor] * CALLS[method][1])
    assert [one.megabytes * 1e6 for one in sent] == [pytest.approx(others_get)]
