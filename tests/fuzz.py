"""Fuzzing of what reads other people's texts: data, answers, recipes, tool calls. Guided by coverage, with atheris.

    python -m venv fuzz && fuzz/bin/pip install atheris==3.0.0     # and the packages of requirements-dev.txt
    fuzz/bin/python tests/fuzz.py answers -max_total_time=600 -timeout=20 FOLDER

What is no fault of the reader is its own error (DataError, RecipeError); all others end the run, and so does a text that
takes 20 s. FOLDER keeps the texts that reached new code. A crash that is found becomes a test, and is mended.
pytest does not collect this file.
"""

import json
import sys
import tempfile
from pathlib import Path

import atheris

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "scripts"), str(ROOT / "05_grpo_verl" / "scripts")]

with atheris.instrument_imports(include=["rl", "job", "tools", "yaml", "csv"]):
    from job.arguments import RecipeError
    from job.recipe import read_command_line, read_recipe, setting_problems
    from rl.answers import extract_answer, is_formatted
    from rl.data_values import DataError
    from rl.math_answers import _is_one_answer, _words
    from rl.own_data import pairs_from, rows_from
    from rl.preferences import read_pairs
    from rl.tasks import read_rows
    from rl.verifiers import VERIFIERS, as_number, usable
    from tools import calculator, find_calls
    from workshop.checks.request import read_script
    from workshop.checks.signatures import load_signature

SUFFIXES = (".jsonl", ".csv", ".json", ".tsv", ".parquet", ".jsonl.gz")
FOLDER = Path(tempfile.mkdtemp(prefix="fuzz-"))
SOUND = {
    "prompt": [{"role": "user", "content": "1 + 1?"}],
    "question": "1 + 1?",
    "answer": "2",
    "task": "t",
    "split": "train",
    "index": 0,
}
SCRIPT = read_script(ROOT / "02_grpo_trl_accelerate" / "scripts", "train.py")


def rows(data: bytes) -> None:
    """Files of rows and of pairs, in each format; half of them begin with a sound row."""
    kind, sound, content = (
        SUFFIXES[data[:1][0] % len(SUFFIXES)] if data else ".jsonl",
        data[:1] > b"\x80",
        data[1:],
    )
    if sound and kind == ".jsonl":
        content = json.dumps(SOUND).encode() + b"\n" + content
    path = FOLDER / f"rows{kind}"
    path.write_bytes(content)
    for read in (read_rows, read_pairs, rows_from, pairs_from):
        try:
            read(path)
        except DataError:
            continue


def answers(data: bytes) -> None:
    """Completions and known answers: what is in them, and each verdict but math's, which a process of its own gives."""
    text, _, gold = data.decode("utf-8", "surrogateescape" if data[:1] > b"\xe0" else "replace").partition(
        "\x00"
    )
    for opening in ("", "<think>"):
        given = extract_answer(text, opening)
        formatted = is_formatted(text, opening)
        assert not formatted or given
    number = as_number(text)
    assert number is None or VERIFIERS["number"](text, text)
    for name, verifier in VERIFIERS.items():
        if name != "math":
            assert verifier(text, gold) in (True, False)
            usable(verifier, gold)
    if _is_one_answer(text):
        _words(text)


def recipes(data: bytes) -> None:
    """Recipe files and command lines, and what is said of their values."""
    path = FOLDER / "recipe.yaml"
    path.write_bytes(data)
    assert SCRIPT
    reads = SCRIPT.reads(load_signature)
    found = []
    for read in (
        lambda: read_recipe(path),
        lambda: read_command_line(data.decode("utf-8", "replace").split("\n")),
    ):
        try:
            found.append(read())
        except RecipeError:
            found.append({})
    json.dumps(setting_problems(*found, reads, {}), ensure_ascii=True)


def tools(data: bytes) -> None:
    """Tool calls in what a model writes, and the calculator."""
    import asyncio

    text = data.decode("utf-8", "replace")
    for call in find_calls(text) + find_calls(
        f'<tool_call>{{"name": "calculator", "arguments": {text}}}</tool_call>'
    ):
        arguments = call["arguments"]
        if isinstance(arguments, dict):
            assert isinstance(asyncio.run(calculator(**{str(k): v for k, v in arguments.items()})), str)
    assert isinstance(asyncio.run(calculator(expression=text)), str)


TARGETS = {"rows": rows, "answers": answers, "recipes": recipes, "tools": tools}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, TARGETS[name])
    atheris.Fuzz()
