"""02's other two ways to learn: RLOO and on-policy distillation, their first step by hand and in short real jobs."""

import copy
from types import SimpleNamespace

import pytest
import torch
from datasets import Dataset
from harness import ROOT, ScriptJob
from job.models import load_base
from job.recipe import parse_arguments
from rl.evaluation import evaluate
from rl.rewards import get_rewards
from rl.tasks import make_splits, write_splits
from rl.verifiers import number
from tiny import tiny_model
from trl import DistillationTrainer, RLOOTrainer
from workshop.checks.request import read_script

SCRIPTS = ROOT / "02_grpo_trl_accelerate" / "scripts"
GROUP = 4
FEW = {
    "per_device_train_batch_size": 16,
    "max_completion_length": 80,
    "eval_problems": 16,
    "eval_samples": 2,
    "save_steps": 2,
    "report_to": "none",
}


@pytest.fixture(scope="module")
def problems():
    return make_splits("chain_sum", {"train": 1000, "test": 16})


@pytest.fixture(scope="module")
def base():
    return load_base("asset:tiny")


@pytest.fixture(scope="module")
def teacher(base, problems, tmp_path_factory):
    """A folder with a model that thinks more often than the base, from which it was trained on its own forced thinking."""
    model, tokenizer = copy.deepcopy(base[0]), base[1]
    rows = problems["train"][:128]
    prompts = {
        row["question"]: tokenizer.apply_chat_template(
            row["prompt"], tokenize=False, add_generation_prompt=True
        )
        for row in rows
    }
    options = {"verifier": number, "samples": 1, "max_new_tokens": 96, "batch_size": 128, "seed": 1}
    thought = evaluate(model, tokenizer, rows, **options, prefill="<think>").completions
    texts = [f"{prompts[item['question']]}{item['completion']}{tokenizer.eos_token}" for item in thought]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for start in [*range(0, len(texts), 16)] * 3:
        batch = tokenizer(texts[start : start + 16], return_tensors="pt", padding=True)
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        model(**batch, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    folder = tmp_path_factory.mktemp("teacher")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def config_of(script: str, recipe: str, folder, **changes):
    """The trainer's config as the script gets it from its recipe."""
    settings = {**FEW, "max_steps": 1, "output_dir": str(folder), "save_strategy": "no", **changes}
    recipe_file = str(SCRIPTS / "recipes" / f"{recipe}.yaml")
    given = [f"--{key}={value}" for key, value in settings.items()]
    return parse_arguments(read_script(SCRIPTS, script), ["--config", recipe_file, *given])[1]


def norm(model: torch.nn.Module) -> float:
    return torch.cat([p.grad.flatten() for p in model.parameters()]).norm().item()


def first_logs(trainer) -> dict:
    return trainer.state.log_history[0]


def logits_of_completion(model, prompt: list[int], completion: list[int]) -> torch.Tensor:
    """(completion tokens, vocabulary): what the model said before each token of the completion."""
    return model(torch.tensor([prompt + completion])).logits[0, len(prompt) - 1 : -1]


@pytest.mark.timeout(300)
def test_rloos_first_step_by_hand(base, problems, tmp_path):
    """Advantage: a reward less the mean of the others of its group. Gradient: of mean(-advantage x log-probability)."""
    seen = SimpleNamespace(calls=[])

    def spied(completions, completion_ids, prompts, answer, **kwargs):
        (accuracy,) = get_rewards(["accuracy"])
        rewards = accuracy(completions=completions, answer=answer)
        seen.calls.append((prompts, completion_ids, rewards))
        return rewards

    config = config_of("train_rloo.py", "tiny", tmp_path, num_generations=GROUP, reward_weights="[1.0]")
    (model, tokenizer), untouched = copy.deepcopy(base), copy.deepcopy(base[0])
    trainer = RLOOTrainer(
        model=model,
        reward_funcs=[spied],
        args=config,
        train_dataset=Dataset.from_list(problems["train"]),
        processing_class=tokenizer,
    )
    trainer.train()
    ((prompts, completions, rewards),) = seen.calls
    assert len(rewards) == FEW["per_device_train_batch_size"] and {0.0, 1.0} == set(rewards)

    advantages = []
    for start in range(0, len(rewards), GROUP):
        group = rewards[start : start + GROUP]
        advantages += [mine - (sum(group) - mine) / (GROUP - 1) for mine in group]
    assert list(trainer._logs["advantages"]) == pytest.approx(advantages)

    untouched.train()
    loss = torch.tensor(0.0)
    for prompt, completion, advantage in zip(prompts, completions, advantages, strict=True):
        asked = tokenizer.apply_chat_template(prompt, add_generation_prompt=True)["input_ids"]
        log_probs = logits_of_completion(untouched, asked, completion).log_softmax(-1)
        summed = log_probs.gather(1, torch.tensor(completion)[:, None]).sum()
        # As a ratio to the policy that sampled, which is 1 here: its gradient is that of the log-probability.
        loss = loss - advantage * (summed - summed.detach()).exp() / len(rewards)
    loss.backward()
    assert first_logs(trainer)["loss"] == pytest.approx(loss.item(), abs=1e-5)
    assert first_logs(trainer)["grad_norm"] == pytest.approx(norm(untouched), rel=1e-3)


@pytest.mark.timeout(300)
def test_distillations_first_step_by_hand(base, teacher, problems, tmp_path, monkeypatch):
    """The mean over the student's own tokens of KL(student || teacher), the sum over the vocabulary."""
    config = config_of("train_distilled.py", "distilled", tmp_path)
    assert (config.beta, config.temperature) == (1.0, 1.0)
    (model, tokenizer), untouched = copy.deepcopy(base), copy.deepcopy(base[0])
    monkeypatch.setenv("SM_CHANNEL_TEACHER", str(teacher))
    teaching, _ = load_base("channel:teacher")
    trainer = DistillationTrainer(
        model=model,
        teacher_model=teaching,
        args=config,
        train_dataset=Dataset.from_list(problems["train"]),
        processing_class=tokenizer,
    )
    trainer.train()

    (written,) = trainer._buffered_inputs
    divergences = []
    for row in range(FEW["per_device_train_batch_size"]):
        prompt = written["prompt_ids"][row][written["prompt_mask"][row] == 1].tolist()
        completion = written["completion_ids"][row][written["completion_mask"][row] == 1].tolist()
        student = logits_of_completion(untouched, prompt, completion).log_softmax(-1)
        with torch.no_grad():
            taught = logits_of_completion(teaching, prompt, completion).log_softmax(-1)
        divergences.append((student.exp() * (student - taught)).sum(-1))
    loss = torch.cat(divergences).mean()
    loss.backward()
    assert loss.item() > 0.01, "there is nothing to learn from this teacher"
    assert first_logs(trainer)["loss"] == pytest.approx(loss.item(), rel=1e-3)
    assert first_logs(trainer)["grad_norm"] == pytest.approx(norm(untouched), rel=1e-3)


@pytest.fixture(scope="module")
def data(problems, tmp_path_factory):
    return write_splits(problems, tmp_path_factory.mktemp("data"))


@pytest.mark.job
@pytest.mark.timeout(500)
def test_an_rloo_job_goes_on_from_its_checkpoint_and_the_coin_with_it(data, tmp_path, monkeypatch):
    settings = {**FEW, "num_generations": GROUP, "rewards": ["control_rewards.coin", "accuracy"], "seed": 7}
    job = ScriptJob(SCRIPTS / "train_rloo.py", tmp_path / "job", data, settings)
    job.run(max_steps=2).run(max_steps=3)
    assert "Going on from checkpoint-2." in job.log
    assert job.steps() == [3]

    monkeypatch.syspath_prepend(str(SCRIPTS))
    (coin,) = get_rewards(["control_rewards.coin"], seed=7)
    state = [SimpleNamespace(global_step=step) for step in range(3)]
    by_hand = [sum(coin(completions=[""] * 16, trainer_state=done)) / 16 for done in state]
    assert len(set(by_hand)) > 1
    assert [logs["rewards/control_rewards.coin/mean"] for logs in job.history()] == pytest.approx(by_hand)

    record = job.output_json("summary.json")
    assert (record["trainer"], record["steps"]) == ("trl.RLOOTrainer", 3)
    assert record["trained"]["sampled"]["n"] == 16
    assert {"model.safetensors", "base_model.json"} <= {path.name for path in job.model.iterdir()}


@pytest.mark.job
@pytest.mark.timeout(500)
def test_a_distilled_student_comes_nearer_to_its_teacher(data, teacher, tmp_path):
    faster = {"per_device_train_batch_size": 64, "learning_rate": 1e-3, "warmup_steps": 0}
    settings = {**FEW, **faster, "max_steps": 12, "save_steps": 6}
    channels = {**data, "teacher": teacher}
    job = ScriptJob(SCRIPTS / "train_distilled.py", tmp_path / "job", channels, settings, recipe="distilled")
    job.run()
    losses = [logs["loss"] for logs in job.history()]
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4]), losses
    record = job.output_json("summary.json")
    assert (record["trainer"], record["steps"]) == ("trl.DistillationTrainer", 12)
    assert record["completion_length"]["trained"] > record["completion_length"]["base"], "it thinks no more"


@pytest.mark.job
@pytest.mark.timeout(300)
def test_a_teacher_with_another_vocabulary_is_refused_before_anything_is_computed(data, tmp_path):
    model, tokenizer = tiny_model()
    model.save_pretrained(tmp_path / "teacher")
    tokenizer.save_pretrained(tmp_path / "teacher")
    channels = {**data, "teacher": tmp_path / "teacher"}
    job = ScriptJob(SCRIPTS / "train_distilled.py", tmp_path / "job", channels, FEW, recipe="distilled")
    job.run(fails=True)
    said = job.failure.read_text()
    assert said.startswith("ModelUnusable: channel:teacher cannot teach asset:tiny: their tokenizers differ")
    assert "[evaluation]" not in job.log
