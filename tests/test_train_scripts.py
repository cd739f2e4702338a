"""The train.py of 02, 03 and 04 are read side by side: each is whole, and what they share is the same word for word."""

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
    ("    start_tracking(", '    log_evaluation("before", before)'),
    ("        args=config,", "        processing_class=tokenizer,"),
    ("    trainer.remove_callback(PrinterCallback)", "    trainer.remove_callback(PrinterCallback)"),
    ("    training = train(", "    training = train("),
    ("    write_summary(job, trainer", "    finish_tracking()"),
    ('if __name__ == "__main__":', "        main()"),
]


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
