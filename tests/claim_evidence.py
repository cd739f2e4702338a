"""What a claim may rest on: the numbers in a notebook's outputs, in its parameters and recipes, in recorded tables."""

import ast
import csv
import math
import re
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
import yaml
from nbformat import NotebookNode
from written_numbers import UNITS, Number, numbers

MODEL_SIZE = re.compile(r"(?<=[-_])(\d+(?:\.\d+)?)([BM])(?![A-Za-z])")  # in a name: Qwen3-8B
JOB_TIMES = re.compile(r"(?m)^[\w-]+: Starting .*")  # what watch() shows of a job


class _Html(HTMLParser):
    """The numbers of an HTML output: those of a table's cells are read with their column's and row's headings."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[tuple[str, list[str]]]] = []
        self.text: list[str] = []
        self._into, self._hidden = self.text, False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th") and self.rows:
            self._into = []
            self.rows[-1].append((tag, self._into))
        self._hidden = tag == "style"
        self._into.append(dict(attrs).get("alt") or " ")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False
        if tag == "table":
            self._into = self.text

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self._into.append(data)

    def numbers(self) -> Iterator[Number]:
        """Those of the text, such as a caption, and of each cell."""
        text = "".join(self.text)
        yield from text_numbers(text)
        heads = [row for row in self.rows if all(tag == "th" for tag, _ in row)]
        for row in self.rows:
            beside = [" ".join(words) for tag, words in row if tag == "th"]
            # Counted from the right, since the cells on the left may span several rows.
            for place, (_, words) in enumerate(reversed(row), start=1):
                above = [" ".join(head[-place][1]) for head in heads if place <= len(head)]
                yield from numbers(" ".join(words), " ".join([*above, *beside, text]))


def output_numbers(outputs: list[NotebookNode]) -> Iterator[Number]:
    """What can be read in a cell's outputs."""
    for output in outputs:
        data = {"text/plain": output.text} if output.output_type == "stream" else output.get("data", {})
        text = str(data.get("text/plain", ""))
        yield from text_numbers(text)
        if "text/html" in data:
            yield from _Html(str(data["text/html"])).numbers()


def text_numbers(text: str, name: str = "") -> Iterator[Number]:
    """The numbers of each line, read with the words of the line and with its name; and what models' names say."""
    for line in text.splitlines():
        yield from numbers(line, f"{name} {line}")
    for size, letter in MODEL_SIZE.findall(text):
        yield from numbers(f"{size} {'billion' if letter == 'B' else 'million'}")


def value_numbers(value: Any, name: str = "") -> Iterator[Number]:
    """The numbers in a recipe's value: a key such as max_hours says their unit."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from value_numbers(inner, str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from value_numbers(inner, name)
    elif isinstance(value, str):
        yield from text_numbers(value, name)
    elif value is not None and not isinstance(value, bool):
        yield from numbers(repr(value), name)


def parameters(notebook: NotebookNode) -> dict[str, Any]:
    """The notebook's parameters and their values."""
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return {
        node.targets[0].id: ast.literal_eval(node.value)
        for node in ast.parse(cell.source).body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
    }


@cache
def evidence(path: Path) -> list[Number]:
    """All that a claim of the notebook at `path` may rest on."""
    notebook = nbformat.read(path, as_version=4)
    found, seconds = list(value_numbers(parameters(notebook))), 0.0
    for cell in notebook.cells:
        if cell.cell_type == "code":
            found += output_numbers(cell.outputs)
            texts = [str(output.get("data", {}).get("text/plain", "")) for output in cell.outputs]
            for line in JOB_TIMES.findall("\n".join(texts)):
                seconds += sum(number.value * size for number in numbers(line) for _, size in number.kinds)
    found.append(Number("all jobs", seconds, 0.0, frozenset([UNITS["s"]])))
    folder = path.parent
    for recipe in [*folder.glob("scripts/recipes/*.yaml"), *folder.glob("machines.yaml")]:
        found += value_numbers(yaml.safe_load(recipe.read_text(encoding="utf-8")))
    for table in folder.glob("recorded/**/*.csv"):
        found += file_numbers(table)
    return found


def file_numbers(path: Path) -> Iterator[Number]:
    """The numbers of a CSV, read with their columns' names, or of another text."""
    if path.suffix == ".csv":
        with open(path, encoding="utf-8", newline="") as file:
            yield from value_numbers([dict(row) for row in csv.DictReader(file)])
    else:
        yield from text_numbers(path.read_text(encoding="utf-8"))


def named_source(path: Path, notebook: NotebookNode, claim: Number, source: str) -> list[Number]:
    """What a Markdown cell's metadata says that the claim rests on. Raises ValueError if that is not there."""
    kind, _, rest = source.partition(":")
    if source.startswith("="):  # in the claim's own unit
        return [Number(source, _worked_out(path, notebook, source[1:]), 0.0, claim.kinds)]
    if kind == "cell":
        for cell in notebook.cells:
            if cell.id == rest:
                shown = list(output_numbers(cell.outputs)) if cell.cell_type == "code" else []
                return [*shown, *text_numbers(cell.source)]
        raise ValueError(f"there is no cell {rest}")
    if kind == "file" and (path.parent / rest).is_file():
        return list(file_numbers(path.parent / rest))
    raise ValueError(f"{source!r} is not cell:<id>, file:<a file beside the notebook> or = <arithmetic>")


def _worked_out(path: Path, notebook: NotebookNode, expression: str) -> float:
    values = parameters(notebook)
    for file in (f"scripts/recipes/{values.get('recipe')}.yaml", "machines.yaml"):
        if (path.parent / file).is_file():
            values = _flat(yaml.safe_load((path.parent / file).read_text(encoding="utf-8"))) | values
    known = {"__builtins__": {}, "log": math.log, "exp": math.exp, "sqrt": math.sqrt}
    try:
        return float(eval(expression, known, values))
    except Exception as error:
        raise ValueError(f"{expression.strip()!r} cannot be worked out: {error}") from error


def _flat(values: dict[str, Any]) -> dict[str, Any]:
    inner = [_flat(value) for value in values.values() if isinstance(value, dict)]
    return {key: value for part in [*inner, values] for key, value in part.items()}
