"""TRL's GRPOTrainer trains in the same environment as verl does in module 05: the class is given to it as it is."""

import pytest
from harness import ROOT, answer_of

SCRIPTS = ROOT / "02_grpo_trl_accelerate" / "scripts"

TRAIN = """
import json, sys
from datasets import Dataset
from job.models import load_base
from rl.environments import Till
from rl.rewards import is_right
from rl.tasks import make_splits
from rl.verifiers import number
from trl import GRPOConfig, GRPOTrainer
from trl.chat_template_utils import qwen3_template

model, tokenizer = load_base("asset:tiny-till")
tokenizer.response_template = qwen3_template  # calls as Hermes and Qwen write them

def accuracy(completions, answer, **columns):
    return [float(is_right(turns[-1]["content"], gold, number)) for turns, gold in zip(completions, answer)]

trainer = GRPOTrainer(
    model=model,
    processing_class=tokenizer,
    reward_funcs=accuracy,
    train_dataset=Dataset.from_list(make_splits("till", {"train": 200})["train"]),
    environment_factory=Till,
    args=GRPOConfig(
        output_dir=sys.argv[1], max_steps=12, per_device_train_batch_size=64, num_generations=8,
        max_completion_length=256, max_tool_calling_iterations=5, learning_rate=3e-4, warmup_steps=3,
        lr_scheduler_type="constant_with_warmup",
        beta=0.0, temperature=1.0, logging_steps=1, save_strategy="no", report_to="none", use_cpu=True, bf16=False,
        disable_tqdm=True, seed=1,
    ),
)
trainer.train()
steps = [row for row in trainer.state.log_history if "reward" in row]
print("ANSWER " + json.dumps([[row["reward"] for row in steps], [row["tools/call_frequency"] for row in steps]]))
"""


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_trl_learns_in_the_till(tmp_path):
    rewards, calls = answer_of(TRAIN, str(tmp_path), scripts=SCRIPTS, TRL_EXPERIMENTAL_SILENCE="1")
    assert len(rewards) == 12
    assert sum(rewards[-3:]) / 3 > sum(rewards[:3]) / 3 + 0.15, rewards
    assert sum(calls[-3:]) > sum(calls[:3]), calls
