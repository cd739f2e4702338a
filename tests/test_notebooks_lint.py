"""What every committed notebook must be: parameterised, fully executed, small, and free of its author's machine.

And what a reader must be able to read: its formulas, links, figures and outputs.
"""

import ast
import html
import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from claims import CODE, FORMULA
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
MAX_BYTES = 750_000
NBVAL_TAGS = {"nbval-skip", "nbval-check-output", "nbval-ignore-output", "nbval-raises-exception"}
NOT_FOR_OTHERS = {
    "a path of the author's machine": r"(?<![\w.])/(?:root|home|Users|work|private|var/folders|tmp)/[\w.-]+",
    "an AWS access key": r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    "a secret": r"(?i)\b(?:aws_secret_access_key|wandb_api_key|hf_token|password)\b\s*[=:]\s*['\"]?[\w/+]{8,}",
    "a token": r"\b(?:hf_[A-Za-z0-9]{20,}|ghp_[A-Za-z0-9]{30,}|sk-[A-Za-z0-9]{20,})\b",
    "a private key": r"-----BEGIN [A-Z ]*PRIVATE KEY-----",
}


# A picture alone has no words for who cannot see it: a Plot brings its summary, plt.show() a "<Figure size ...>".
FIGURE_WITHOUT_WORDS = re.compile(r"\s*$|<Figure\b|<.* at 0x")
LIST_OF_DICTIONARIES = re.compile(r"\[\s*\{\s*'")


def lint(path: Path) -> list[str]:
    """Everything wrong with the notebook at `path`, in words."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]
    problems = []
    if path.stat().st_size > MAX_BYTES:
        problems.append(
            f"it has {path.stat().st_size:,} bytes, {MAX_BYTES:,} are allowed: make the plots smaller"
        )
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        problems.append("its kernelspec is not python3, which breaks runs elsewhere")
    problems += [f"its tag `{tag}` means nothing to nbval" for tag in sorted(_nbval_tags(code) - NBVAL_TAGS)]
    return problems + _parameter_problems(code) + _execution_problems(code) + _private_things(code)


def _parameter_problems(code: list[NotebookNode]) -> list[str]:
    tagged = [index for index, cell in enumerate(code) if "parameters" in cell.metadata.get("tags", [])]
    if len(tagged) != 1:
        return [f"{len(tagged)} cells are tagged `parameters`, one must be"]
    names = _names(code[tagged[0]].source, ast.Store)
    used = set().union(*(_names(cell.source, ast.Load) for cell in code[tagged[0] + 1 :]))
    return [f"parameter `{name}` is not used in any later cell" for name in sorted(names - used)]


def _nbval_tags(code: list[NotebookNode]) -> set[str]:
    return {tag for cell in code for tag in cell.metadata.get("tags", []) if tag.startswith("nbval")}


def _names(source: str, context: type) -> set[str]:
    python = "\n".join("" if line.lstrip().startswith(("%", "!")) else line for line in source.splitlines())
    return {
        node.id
        for node in ast.walk(ast.parse(python))
        if isinstance(node, ast.Name) and isinstance(node.ctx, context)
    }


def _execution_problems(code: list[NotebookNode]) -> list[str]:
    problems = []
    counts = [cell.execution_count for cell in code]
    if counts != list(range(1, len(code) + 1)):
        problems.append(f"its cells were not executed once, in order, from a fresh kernel: {counts}")
    for cell in code:
        for output in cell.outputs:
            if output.output_type == "error":
                problems.append(
                    f"In [{cell.execution_count}] shows an error: {output.ename}: {output.evalue}"
                )
    return problems


def _private_things(code: list[NotebookNode]) -> list[str]:
    problems = []
    for cell in code:
        for text in (cell.source, *(_text(output) for output in cell.outputs)):
            for what, pattern in NOT_FOR_OTHERS.items():
                found = re.search(pattern, text)
                if found:
                    problems.append(f"In [{cell.execution_count}] shows {what}: {found.group()[:40]}")
    return problems


def _text(output: NotebookNode) -> str:
    """What can be read in an output; images are left out, their base64 may spell anything."""
    if output.output_type == "stream":
        return output.text
    if output.output_type == "error":
        return "\n".join(output.traceback)
    return "\n".join(str(value) for kind, value in output.data.items() if kind.startswith("text/"))


def formula_problems(path: Path) -> Iterator[str]:
    """Formulas that do not come out as such."""
    for cell in _markdown(path):
        text = CODE.sub("", cell.source)
        for formula in FORMULA.findall(text):
            if found := re.search(r"\\\\[A-Za-z]+", formula):
                yield f"{cell.id}: {found.group()} is a new line and a word; a command has one backslash"
        if "$" in re.sub(r"\\\$", "", FORMULA.sub("", text)):
            yield f"{cell.id}: a $ without its other half; a dollar is written \\$"


def link_problems(path: Path) -> Iterator[str]:
    """Links and images that lead nowhere."""
    for cell in _markdown(path):
        for target in re.findall(r"\]\(([^)#\s]+)|\bsrc=[\"']([^\"']+)", cell.source):
            target = "".join(target)
            if not re.match(r"\w+:", target) and not (path.parent / target).exists():
                yield f"{cell.id}: there is no {target}"


def figure_problems(path: Path) -> Iterator[str]:
    """Figures that say nothing to who cannot see them."""
    for cell, data in _shown(path):
        if "image/png" in data and FIGURE_WITHOUT_WORDS.match(data.get("text/plain", "")):
            yield f"{cell.id}: a figure without words: show a workshop.views.plots.Plot with a summary"
        for image in re.findall(r"<img\b[^>]*>", data.get("text/html", "")):
            if not re.search(r"\balt=[\"']?\w", image):
                yield f"{cell.id}: an image without alt: {image[:60]}"


def raw_list_problems(path: Path) -> Iterator[str]:
    """Data shown as Python writes them."""
    for cell, data in _shown(path):
        if any(
            LIST_OF_DICTIONARIES.search(html.unescape(data.get(kind, "")))
            for kind in ("text/plain", "text/html")
        ):
            yield f"{cell.id}: shows a list of dictionaries: make a table of it, or show its text"


RULES = {
    "formulas": formula_problems,
    "links": link_problems,
    "figures": figure_problems,
    "raw lists": raw_list_problems,
}


def _markdown(path: Path) -> list[NotebookNode]:
    return [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown"]


def _shown(path: Path) -> Iterator[tuple[NotebookNode, dict[str, str]]]:
    for cell in nbformat.read(path, as_version=4).cells:
        for output in cell.get("outputs", []):
            yield (
                cell,
                {"text/plain": output.text} if output.output_type == "stream" else output.get("data", {}),
            )


def write_notebook(folder: Path, *, executed: bool = True, kernel: str = "python3", cells: list[str]) -> Path:
    """A notebook whose first cell is its parameters cell."""
    nodes = [nbformat.v4.new_code_cell(source) for source in cells]
    nodes[0].metadata["tags"] = ["parameters"]
    for number, node in enumerate(nodes, start=1):
        node.execution_count = number if executed else None
    specification = {"name": kernel, "display_name": "Python 3", "language": "python"}
    path = folder / "example.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=nodes, metadata={"kernelspec": specification}), path)
    return path


def change(path: Path, action) -> Path:
    notebook = nbformat.read(path, as_version=4)
    action(notebook.cells)
    nbformat.write(notebook, path)
    return path


def with_output(text: str):
    def action(cells: list[NotebookNode]) -> None:
        cells[1].outputs = [nbformat.v4.new_output("stream", name="stdout", text=text)]

    return action


def with_error(cells: list[NotebookNode]) -> None:
    cells[1].outputs = [nbformat.v4.new_output("error", ename="ValueError", evalue="no", traceback=["no"])]


def test_there_are_notebooks():
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_notebook(path):
    assert lint(path) == []


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_notebook_can_be_read(path, rule):
    assert list(RULES[rule](path)) == []


def test_a_good_notebook_passes(tmp_path):
    path = write_notebook(
        tmp_path, cells=["seed = 1", "%matplotlib inline\nprint(seed, 's3://bucket/tmp/data /opt/ml/model')"]
    )
    assert lint(change(path, with_output("s3://bucket/home/data, /opt/ml/input/data, ./work/x\n"))) == []


@pytest.mark.parametrize(
    "action, problem",
    [
        (lambda cells: cells[0].metadata.update(tags=[]), "0 cells are tagged"),
        (lambda cells: cells[1].metadata.update(tags=["parameters"]), "2 cells are tagged"),
        (lambda cells: cells[1].metadata.update(tags=["nbval-check"]), "means nothing to nbval"),
        (lambda cells: cells[0].update(source="seed = 1\nrate = 2"), "`rate` is not used"),
        (lambda cells: cells[1].update(execution_count=3), "not executed once, in order"),
        (lambda cells: cells[1].update(execution_count=None), "not executed once, in order"),
        (lambda cells: cells[1].update(source="print(seed, '" + "x" * MAX_BYTES + "')"), "bytes"),
        (lambda cells: cells[1].update(source="print(seed, open('/home/ana/data.csv'))"), "author's machine"),
        (with_error, "shows an error: ValueError"),
        (with_output("loaded /root/models/tiny"), "author's machine"),
        (with_output('File "/Users/ana/code/train.py"'), "author's machine"),
        (with_output("AKIAIOSFODNN7EXAMPLE"), "access key"),
        (with_output("WANDB_API_KEY=0123456789abcdef"), "a secret"),
        (with_output("hf_abcdefghijklmnopqrstuvwx"), "a token"),
    ],
)
def test_each_fault_is_found(tmp_path, action, problem):
    path = change(write_notebook(tmp_path, cells=["seed = 1", "print(seed)"]), action)
    assert len(lint(path)) == 1 and problem in lint(path)[0]


def test_another_kernel_is_found(tmp_path):
    path = write_notebook(tmp_path, kernel="conda-env-mine", cells=["seed = 1", "print(seed)"])
    assert ["kernelspec" in problem for problem in lint(path)] == [True]


def read(tmp_path: Path, *outputs: dict[str, str], markdown: str = "") -> Path:
    """A notebook with this Markdown cell and these outputs."""
    shown = [nbformat.v4.new_output("display_data", data) for data in outputs]
    cells = [nbformat.v4.new_markdown_cell(markdown), nbformat.v4.new_code_cell("show()", outputs=shown)]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), tmp_path / "example.ipynb")
    (tmp_path / "train.py").touch()
    return tmp_path / "example.ipynb"


def problems(path: Path) -> list[str]:
    return [problem for rule in RULES.values() for problem in rule(path)]


@pytest.mark.parametrize(
    "markdown",
    [
        r"$$A_i = \frac{r_i - \bar r}{\sigma}$$ and $\beta$, `\\frac`, a price of \$5 and \$6",
        "$$\\begin{aligned} a &= b \\\\ c &= d \\\\\nf &= g\\end{aligned}$$\n\n```\necho $HOME\n```",
        "[a script](train.py), [a part](train.py#L3), [there](#here), [a page](https://example.org/none)",
    ],
)
def test_good_prose_passes(tmp_path, markdown):
    assert problems(read(tmp_path, markdown=markdown)) == []


@pytest.mark.parametrize(
    "markdown, problem",
    [
        (r"$$A_i = \\frac{1}{2}$$", r"\\frac is a new line"),
        (r"the rate $\\beta$ of", r"\\beta is a new line"),
        (r"the rate $\beta of it", "without its other half"),
        ("$5 an hour, or $6", "without its other half"),
        ("[a script](trian.py)", "there is no trian.py"),
        ('<img src="curve.png" alt="a curve">', "there is no curve.png"),
    ],
)
def test_each_fault_in_prose_is_found(tmp_path, markdown, problem):
    found = problems(read(tmp_path, markdown=markdown))
    assert len(found) == 1 and problem in found[0]


@pytest.mark.parametrize(
    "data",
    [
        {"image/png": "AAAA", "text/plain": "reward 0.6 -> 1.2"},
        {
            "text/html": '<img alt="Reward while training" src="data:image/png;base64,AAAA">',
            "text/plain": "done",
        },
        {"text/plain": '[\n {\n  "type": "function"\n }\n]'},  # JSON, printed to be read
        {"text/plain": "[{1, 2}]", "text/html": "<td>[0.1, 0.2]</td>"},
    ],
)
def test_good_outputs_pass(tmp_path, data):
    assert problems(read(tmp_path, data)) == []


@pytest.mark.parametrize(
    "data, problem",
    [
        ({"image/png": "AAAA", "text/plain": "<Figure size 800x320 with 1 Axes>"}, "a figure without words"),
        ({"image/png": "AAAA"}, "a figure without words"),
        (
            {"image/png": "AAAA", "text/plain": "<PIL.Image.Image image mode=P at 0x7F>"},
            "a figure without words",
        ),
        (
            {"text/html": '<img src="data:image/png;base64,AAAA">', "text/plain": "done"},
            "an image without alt",
        ),
        ({"text/plain": "[{'role': 'user', 'content': 'Hi'}]"}, "a list of dictionaries"),
        ({"text/plain": "0  ...", "text/html": "<td>[{&#x27;role&#x27;: 1}]</td>"}, "a list of dictionaries"),
    ],
)
def test_each_fault_in_outputs_is_found(tmp_path, data, problem):
    found = problems(read(tmp_path, data))
    assert len(found) == 1 and problem in found[0]


def reading_order() -> list[str]:
    """The modules as the README's map has them."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"(?m)^\| \[(0\d_\w+)\]", text)


def test_the_map_has_all_modules_in_the_order_that_the_readme_names():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert sorted(reading_order()) == [path.parent.name for path in NOTEBOOKS]
    assert f"the order is {', '.join(module[:2] for module in reading_order())}" in text


@pytest.mark.parametrize(("module", "following"), [*itertools.pairwise(reading_order())])
def test_a_notebook_ends_with_the_next_one(module, following):
    last = _markdown(ROOT / module / f"{module}.ipynb")[-1].source
    assert last.startswith("**Next.**") and f"](../{following})" in last
