"""Memory, timeline and rollouts of verl jobs, as the notebook shows them."""

import json
from pathlib import Path

import pytest
from lesson.rollouts import left_at_the_end, read_rollouts, transcript, turns_of, with_calls, with_haste
from lesson.timeline import phase_seconds, plot_timeline, read_timeline
from lesson.verl_checks import CPUS_OF_A_SLOT, cpu_problems, shape_problems
from lesson.verl_memory import actor_memory, fit_problems, rollout_memory
from rl.tasks import DataError
from verl_recipe import read_verl_recipe
from workshop.checks.instances import find_instance
from workshop.checks.memory import GB, SHAPES
from workshop.session.machines import read_machine

RECIPES = Path(__file__).parents[1] / "05_grpo_verl" / "scripts" / "recipes"
A100, A100_80, H100 = 42.9e9, 85.9e9, 85.9e9


def settings_of(recipe: str, *overrides: str) -> dict:
    return read_verl_recipe(RECIPES / f"{recipe}.yaml", overrides)[1]


def test_states_of_fsdp_are_what_a_parameter_costs():
    weights = SHAPES["Qwen3-4B"].parameters
    for gpus in (8, 16):
        held = actor_memory(SHAPES["Qwen3-4B"], settings_of("full"), gpus)
        assert held.parameters == held.gradients == 4 * weights / gpus
        assert held.optimizer == 8 * weights / gpus


def test_states_of_megatron_depend_on_its_parts_and_not_on_copies():
    weights = SHAPES["Qwen3-32B"].parameters
    settings = settings_of("megatron")  # tensor parallel 8, pipeline parallel 2
    sixteen, more = (actor_memory(SHAPES["Qwen3-32B"], settings, gpus) for gpus in (16, 32))
    assert sixteen.parameters == more.parameters == 2 * weights / 16
    assert sixteen.gradients == more.gradients == 4 * weights / 16
    assert sixteen.optimizer == 2 * more.optimizer == 12 * weights / 16


def test_lora_leaves_gradients_and_optimizer_to_the_adapters():
    shape, settings = SHAPES["Qwen3-32B"], settings_of("lora")
    held = actor_memory(shape, settings, 8)
    assert held.gradients == 2 * shape.adapter_parameters(32) / 8  # bfloat16
    assert held.parameters == 2 * (shape.parameters + shape.adapter_parameters(32)) / 8


def test_fewer_tokens_at_a_time_take_less_activation_memory():
    full = actor_memory(SHAPES["Qwen3-4B"], settings_of("full"), 8)
    key = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=8192"
    half = actor_memory(SHAPES["Qwen3-4B"], settings_of("full", key), 8)
    assert half.activations == pytest.approx(full.activations / 2)


def test_offloaded_states_leave_the_gpu_to_the_engine():
    shape, key = SHAPES["Qwen3-4B"], "actor_rollout_ref.actor.fsdp_config"
    kept = rollout_memory(shape, settings_of("full", f"{key}.optimizer_offload=false"), 8)
    gone = rollout_memory(shape, settings_of("full", f"{key}.param_offload=true"), 8)
    assert kept.parameters > 0 and kept.optimizer == 2 * kept.parameters
    assert gone.parameters == gone.optimizer == 0
    assert gone.gathered == kept.gathered == 2 * shape.parameters / 2  # tensor parallel 2


@pytest.mark.parametrize(
    ("recipe", "model", "gpus", "size"),
    [
        ("full", "Qwen3-4B", 8, A100),
        ("full", "Qwen3-4B", 16, A100),
        ("ulysses", "Qwen3-4B", 8, A100),
        ("lora", "Qwen3-32B", 8, A100),
        ("megatron", "Qwen3-32B", 16, H100),
        ("small", "SmolLM2-135M", 1, 24e9),
    ],
)
def test_recipes_fit_the_machines_they_name(recipe, model, gpus, size):
    assert fit_problems(SHAPES[model], settings_of(recipe), gpus=gpus, gpu_bytes=size) == []


@pytest.mark.parametrize(
    ("recipe", "overrides", "model", "gpus", "size", "says"),
    [
        ("full", [], "Qwen3-14B", 8, A100, "The actor needs about"),
        ("full", ["actor_rollout_ref.rollout.tensor_model_parallel_size=1"], "Qwen3-32B", 64, A100_80,
         "raise rollout.tensor_model_parallel_size"),
        ("full", ["actor_rollout_ref.rollout.gpu_memory_utilization=0.95"], "Qwen3-4B", 8, A100,
         "lower rollout.gpu_memory_utilization"),
        ("lora", ["actor_rollout_ref.rollout.max_model_len=null", "actor_rollout_ref.rollout.gpu_memory_utilization=0.25"],
         "Qwen3-32B", 8, A100, "one sequence of 40,960 tokens"),
        ("megatron", ["actor_rollout_ref.actor.megatron.pipeline_model_parallel_size=1"], "Qwen3-32B", 8, H100,
         "The actor needs about"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_with_what_to_change(recipe, overrides, model, gpus, size, says):
    settings = settings_of(recipe, *overrides)
    problems = fit_problems(SHAPES[model], settings, gpus=gpus, gpu_bytes=size)
    assert any(says in problem for problem in problems), problems
    assert f"{size / GB:.0f} GB" in problems[0]


def test_without_a_window_the_engine_plans_for_what_the_model_can():
    sizes = [
        rollout_memory(SHAPES["Qwen3-4B"], settings_of("full", *more), 8).kv_cache
        for more in ([], ["actor_rollout_ref.rollout.max_model_len=null"])
    ]
    assert sizes[1] / sizes[0] == 40960 / 1536


@pytest.mark.parametrize(
    ("recipe", "override", "model", "says"),
    [
        ("full", "rollout.tensor_model_parallel_size=2", "Qwen3-4B", None),
        ("megatron", "actor.ppo_mini_batch_size=32", "Qwen3-32B", None),
        ("ulysses", "actor.ppo_mini_batch_size=16", "Qwen3-4B", None),
        ("small", "rollout.tensor_model_parallel_size=2", "SmolLM2-135M", "9 attention heads cannot be dealt evenly to 2"),
        ("ulysses", "actor.fsdp_config.ulysses_sequence_parallel_size=5", "Qwen3-4B", "32 attention heads"),
        ("tiny_tensor", "actor.ppo_mini_batch_size=8", "tiny-even", None),
        ("tiny_tensor", "actor.ppo_mini_batch_size=8", "tiny", "327 rows of vocabulary cannot be dealt evenly to 2"),
        ("megatron", "actor.megatron.pipeline_model_parallel_size=3", "Qwen3-32B", "64 layers cannot be dealt evenly"),
    ],
)  # fmt: skip
def test_a_model_is_cut_through_whole_heads_and_layers(recipe, override, model, says):
    problems = list(shape_problems(SHAPES[model], settings_of(recipe, f"actor_rollout_ref.{override}")))
    assert len(problems) == (says is not None) and all(says in problem for problem in problems), problems


@pytest.mark.parametrize("recipe", [path.stem for path in sorted(RECIPES.glob("*.yaml"))])
def test_every_actor_finds_a_cpu_on_the_machine_of_the_recipe(recipe):
    machine = read_machine(RECIPES.parents[1] / "machines.yaml", recipe)
    vcpus = find_instance(machine.instance_type).vcpus
    assert not list(cpu_problems(settings_of(recipe), machine.instance_count, machine.process_count, vcpus))


def test_a_small_host_has_no_cpus_for_eight_storage_units():
    units = "transfer_queue.backend.SimpleStorage.num_data_storage_units=8"
    (problem,) = cpu_problems(settings_of("small", units), hosts=1, slots=1, vcpus=4)
    # The task runner, a controller, eight units, and three in the one slot: 13. The launcher offers 8.
    assert "ask Ray for 13 CPUs" in problem and "there are 8" in problem
    driver = (RECIPES.parents[2] / "scripts/launchers/drivers/ray_hosts.py").read_text()
    assert f"\nLOGICAL_CPUS = {CPUS_OF_A_SLOT} " in driver


def test_the_entropy_keeps_the_gradient_from_being_written_over_the_logits():
    shape, asked = SHAPES["Qwen3-4B"], "actor_rollout_ref.actor.calculate_entropy=true"
    with_entropy = actor_memory(shape, settings_of("full", asked), 8).activations
    without = actor_memory(shape, settings_of("full"), 8).activations
    assert with_entropy - without == 16384 * shape.vocabulary * 2  # bfloat16, of each logit of a micro batch


def stretch(worker: str, call: str, start: float, end: float, host: str = "10.0.0.1") -> dict:
    return {"host": host, "worker": worker, "call": call, "start": start, "end": end, "calls": 1}


def steps(count: int, hosts: tuple[str, ...] = ("10.0.0.1",)) -> list[dict]:
    """Steps of 3 s: generate, learn, hand over; on each host one process of each kind. The first weights come before."""
    first = [
        stretch(f"w{host}", "WorkerDict.actor_rollout_update_weights", -0.5, 0.0, host) for host in hosts
    ]
    return first + [
        stretch(f"{kind}{host}", call, 3 * step + start, 3 * step + end, host)
        for step in range(count)
        for host in hosts
        for kind, call, start, end in (
            ("s", "Server.generate", 0.2, 1.0),
            ("w", "WorkerDict.actor_rollout_update_actor", 1.0, 2.0),
            ("w", "WorkerDict.actor_rollout_update_weights", 2.0, 2.9),
            ("s", "Server.update_weights", 2.1, 2.9),
            ("t", "TaskRunner.run", 0.0, 3.0),
        )
    ]


def test_timeline_has_a_line_for_each_process(tmp_path):
    path = tmp_path / "timeline.jsonl"
    path.write_text("".join(json.dumps(item) + "\n" for item in steps(5, ("10.0.0.2", "10.0.0.1"))))
    plot = plot_timeline(read_timeline(path), last_step=5)
    assert plot.summary.startswith(
        "4 processes over 6.1 s: rollout server 0, host 1, rollout server 1, host 2"
    )
    legend = {text.get_text() for text in plot.figure.legends[0].get_texts()}
    assert legend == {"write completions", "learn", "hand over the weights"}
    one = plot_timeline(steps(5), last_step=5, steps=1)
    assert one.summary == "2 processes over 3.1 s: rollout server, training process"


@pytest.mark.parametrize(
    ("dropped", "last_step", "shown"),
    [
        (0, 5, "steps 4 to 5"),
        (8, 5, "steps 4 to 5"),  # Ray has dropped the first steps
        (0, 25, "steps 24 to 25"),  # the job went on from step 20
        (17, 5, "step 5"),
    ],
)
def test_a_timeline_counts_its_steps_from_the_end(dropped, last_step, shown):
    axes = plot_timeline(steps(5)[dropped:], last_step=last_step).figure.axes[0]
    assert axes.get_xlabel().endswith(f"({shown})")


def test_timeline_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="no whole step"):
        plot_timeline(steps(5)[-5:], last_step=5)
    with pytest.raises(DataError, match="writes it when its training ends"):
        read_timeline(tmp_path / "none.jsonl")


def test_phases_add_up_to_the_step():
    history = [
        {"step_time": 3.0, "timing_s/gen": 1.0, "timing_s/update_actor": 1.0},
        {"step_time": 5.0, "timing_s/gen": 2.0, "timing_s/save_checkpoint": 1.0},
    ]
    parts = phase_seconds(history)
    assert parts == {"gen": 1.5, "update_actor": 0.5, "save_checkpoint": 0.5, "other": 1.5}
    assert sum(parts.values()) == 4.0


CALL = '<tool_call>{"name": "calculator", "arguments": {"expression": "2 + 3"}}</tool_call>'
PROMPT = "system\nTools: calculator(expression)\nuser\n2 + 3 =\nassistant\n"


def test_rollouts_of_all_steps_in_order(tmp_path):
    outputs = {1: ["<answer>4</answer>", "<answer>5</answer>"], 2: [CALL], 10: [CALL, "<answer>1</answer>"]}
    for step, texts in outputs.items():
        rows = [{"step": step, "input": PROMPT, "output": text, "gts": "5", "score": 0.0} for text in texts]
        (tmp_path / f"{step}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    rollouts = read_rollouts(tmp_path)
    assert [rollout["step"] for rollout in rollouts] == [1, 1, 2, 10, 10]
    history = with_calls([{"step": step} for step in (1, 2, 10)], rollouts)
    assert [row["calls"] for row in history] == [0.0, 1.0, 0.5]
    with pytest.raises(DataError, match="rollout_data_dir"):
        read_rollouts(tmp_path / "elsewhere")


def test_transcript_has_all_turns():
    output = f"{CALL}\ntool\n5\nassistant\n<answer>5</answer>"
    rollout = {"step": 3, "input": PROMPT, "output": output, "gts": "5", "score": 1.0}
    assert turns_of(rollout) == [
        ("system", "Tools: calculator(expression)"),
        ("user", "2 + 3 ="),
        ("assistant", CALL),
        ("tool", "5"),
        ("assistant", "<answer>5</answer>"),
    ]
    view = transcript(rollout)
    assert "&lt;tool_call&gt;" in view.html and "<tool_call>" not in view.html
    assert "step 3, right answer 5, reward 1" in repr(view)


@pytest.mark.parametrize(
    ("completion", "left"),
    [
        ("<answer>12</answer>", "not begun"),
        ("", "not begun"),
        ("<tool_call>...</tool_call>\ntool\n7, left 902, 335\nassistant\n<answer>7</answer>", "2 items"),
        ("<tool_call>...</tool_call>\ntool\n7, left 902\nassistant\n<answer>7</answer>", "1 item"),
        (
            "call\ntool\n7, left 902\nassistant\ncall\ntool\n9, left nothing\nassistant\n<answer>9</answer>",
            "nothing",
        ),
        ("call\ntool\nError: 418 is not among them, left 902, 335\nassistant\n<answer>9</answer>", "2 items"),
    ],
)
def test_what_a_completion_leaves_unscanned(completion, left):
    assert left_at_the_end(completion) == left


def test_the_share_of_hasty_completions_of_each_step():
    outputs = ["<answer>1</answer>", "call\ntool\n9, left nothing\nassistant\n<answer>9</answer>"]
    rollouts = [
        {"step": 1, "output": outputs[0]},
        {"step": 1, "output": outputs[1]},
        {"step": 3, "output": outputs[1]},
    ]
    history = [{"step": step, "reward": 0.5} for step in (1, 2, 3)]
    assert with_haste(history, rollouts) == [
        {"step": 1, "reward": 0.5, "hasty": 0.5},
        {"step": 3, "reward": 0.5, "hasty": 0.0},
    ]
