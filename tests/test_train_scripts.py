"""The train.py of 02, 03 and 04 are read side by side: each is whole, and what they share is the same word for word.

And all training scripts mark their checkpoints with what they look for in those of others.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GRPO = ("02_grpo_trl_accelerate", "03_grpo_trl_fsdp", "04_grpo_unsloth")
LONGEST = 150  # lines of a training script
LONGEST_MODULE = 350

# First and last line of each passage that they share.
SHARED = [
    (
        '    job, config = parse_arguments(SCRIPTS["train.py"])',
        "    config.output_dir = str(checkpoint_dir())",
    ),
    ("    tokenizer, verifier = ", "    }"),
    ("    made_of = ", "    checkpoint = "),
    ("    start_tracking(", "    start_tracking("),  # before the model is loaded, which may take long
    ("    check_prompts(", "    check_prompts("),
    ("    decoding = {", '    log_evaluation("before", before)'),
    ("        args=config,", "        processing_class=tokenizer,"),
    ("    trainer.remove_callback(PrinterCallback)", "    trainer.remove_callback(PrinterCallback)"),
    ("    training = train(", "    training = train("),
    ("    write_summary(job, trainer", "    finish_tracking()"),
    ('if __name__ == "__main__":', "        main()"),
]

# What each training script's checkpoints are made of.
MADE_OF = {
    "01_dpo_trl/train.py": "fingerprints(job, pairs['train'], seed=config.seed)",
    **{
        f"{module}/train.py": "fingerprints(job, train_rows, seed=config.seed, reward_weights=config.reward_weights)"
        for module in GRPO
    },
    "02_grpo_trl_accelerate/train_reward_model.py": (
        "fingerprints(job, rows, seed=config.seed) | {'verdict': verdict, 'pairs': fingerprint(pairs)[:SHOWN]}"
    ),
    "02_grpo_trl_accelerate/train_rloo.py": (
        "fingerprints(job, train_rows, seed=config.seed, reward_weights=config.reward_weights)"
    ),
    "02_grpo_trl_accelerate/train_distilled.py": (
        "fingerprints(job, train_rows, seed=config.seed) | {'teacher': model_fingerprint(job.teacher)}"
    ),
    "05_grpo_verl/train.py": "fingerprints(job, train_rows, seed=config.data.seed, reward_weights=job.reward_weights)",
}


def script(module: str) -> str:
    return (ROOT / module / "scripts" / "train.py").read_text(encoding="utf-8")


def passage(text: str, first: str, last: str) -> str:
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(first))
    end = next(number for number, line in enumerate(lines) if number >= start and line.startswith(last))
    return "\n".join(lines[start : end + 1])


@pytest.mark.parametrize(("first", "last"), SHARED)
def test_what_they_share_is_the_same_word_for_word(first, last):
    passages = {passage(script(module), first, last) for module in GRPO}
    assert len(passages) == 1, "\n\n".join(sorted(passages))


@pytest.mark.parametrize(("first", "last"), [ends for ends in SHARED if '"train.py"' not in ends[0]])
def test_rloo_shares_all_that_does_not_name_its_trainer(first, last):
    rloo = (ROOT / GRPO[0] / "scripts" / "train_rloo.py").read_text(encoding="utf-8")
    assert passage(rloo, first, last) == passage(script(GRPO[0]), first, last)


@pytest.mark.parametrize("name", MADE_OF)
def test_a_checkpoint_is_marked_with_what_is_looked_for_when_going_on(name):
    """What the calls then refuse, tests/test_job_checkpoints.py shows."""
    module, file = name.split("/")
    tree = ast.parse((ROOT / module / "scripts" / file).read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {ast.unparse(call.func): ast.unparse(call) for call in calls}
    assert [ast.unparse(call.func) for call in calls].count("newest_complete") == 1
    given = {keyword.arg: ast.unparse(keyword.value) for call in calls for keyword in call.keywords}
    (made_of,) = (
        ast.unparse(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "made_of"
    )
    assert made_of == MADE_OF[name]
    if module == "05_grpo_verl":  # verl's own trainer saves and marks, in its processes
        looks_for = "newest_complete(checkpoint_dir(), prefix='global_step_', fingerprints=made_of)"
        assert "made_of=made_of" in called["fill_in"]
    else:
        looks_for = "newest_complete(checkpoint_dir(), fingerprints=made_of)"
        warnings = "ZeroRewardWarnings(before), " if module in GRPO and file == "train.py" else ""
        assert given["callbacks"].startswith(f"[MetricLines(), {warnings}CheckpointMarker(made_of)")
        before = "" if file == "train_reward_model.py" else ", before"
        assert called["train"] == f"train(trainer, checkpoint{before})"
    assert called["newest_complete"] == looks_for


@pytest.mark.parametrize(
    "name", [*MADE_OF, "01_dpo_trl/pairs_sampled.py", "02_grpo_trl_accelerate/evaluate_policy.py"]
)
def test_prompts_are_looked_at_before_a_model_answers_one(name):
    module, file = name.split("/")
    text = (ROOT / module / "scripts" / file).read_text(encoding="utf-8").partition("def main()")[2]
    looked = "fitting_rows(" if module == "05_grpo_verl" else "check_prompts("
    answered = [text.find(call) for call in ("evaluate(", "evaluate,", "sampled_pairs(", "run_ppo(")]
    assert -1 < text.find(looked) < min(place for place in [*answered, len(text)] if place >= 0)


def test_every_training_script_is_listed():
    found = {f"{path.parts[-3]}/{path.name}" for path in ROOT.glob("[0-9][0-9]_*/scripts/train*.py")}
    assert found == MADE_OF.keys()


def test_most_of_each_is_shared():
    """A passage that leaves the list unseen would make the test above hold nothing."""
    for module in GRPO:
        (main,) = (
            node
            for node in ast.parse(script(module)).body
            if isinstance(node, ast.FunctionDef) and node.name == "main"
        )
        shared = sum(len(passage(script(module), *ends).splitlines()) for ends in SHARED)
        assert shared > 0.5 * (main.end_lineno - main.lineno)


def test_training_scripts_and_modules_can_be_read_at_one_sitting():
    for path in ROOT.glob("[0-9][0-9]_*/scripts/train*.py"):
        assert len(path.read_text().splitlines()) <= LONGEST, path
    for pattern in ("scripts/**/*.py", "[0-9][0-9]_*/**/*.py"):
        for path in ROOT.glob(pattern):
            assert len(path.read_text().splitlines()) <= LONGEST_MODULE, path
