"""Every claim stands beside the number that it rests on: numbers in prose are compared with the notebooks' outputs.

golden/unsupported_claims.json lists those that are not supported yet. It may only shrink: a claim that is not in it needs
support (tests/claims.py says which kinds there are), and one that is no longer made, or supported now, is taken off it.
"""

import json
from pathlib import Path

import nbformat
import pytest
from claims import NOTEBOOKS, README, Claim, check_notebook, check_readme, claims
from written_numbers import Number, numbers

LIST = Path(__file__).parent / "golden" / "unsupported_claims.json"
ALLOWED = json.loads(LIST.read_text(encoding="utf-8"))


def texts(found: dict[str, list[Claim]]) -> dict[str, list[str]]:
    return {place: [claim.number.text for claim in of_one] for place, of_one in found.items()}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_the_numbers_in_a_notebooks_prose_are_supported(path):
    unsupported, errors = check_notebook(path)
    assert errors == []
    assert texts(unsupported) == ALLOWED.get(path.parent.name, {}), unsupported


def test_the_numbers_in_the_readme_are_supported():
    unsupported = check_readme()
    assert texts(unsupported) == ALLOWED.get(README.name, {}), unsupported


def test_the_list_is_of_documents_that_there_are():
    assert set(ALLOWED) <= {path.parent.name for path in NOTEBOOKS} | {README.name}
    assert all(found for places in ALLOWED.values() for found in places.values())


@pytest.mark.parametrize(
    "markdown, stated",
    [
        # Claims.
        ("pass@1 rises to 0.98, from 10.7 %.", ["0.98", "10.7 %"]),
        ("It takes about 7 minutes, not 33 seconds.", ["7 minutes", "33 seconds"]),
        ("Ten minutes here, a minute and a half there.", ["Ten minutes", "a minute and a half"]),
        ("Half a million parameters, 135 million of another.", ["Half a million", "135 million"]),
        ("Generating 60 tokens; 2,000 problems.", ["60", "2,000"]),
        ("For 24, 48 and 80 GB.", ["24", "48", "80 GB"]),
        ("It is 3x faster, at $0.57 an hour.", ["3x", "$0.57"]),
        ("A rate of 5e-4, above 0.90.", ["5e-4", "0.90"]),
        ("## 7. After 80 steps\n\n1. ends at 0.98", ["80", "0.98"]),
        ("| time | 188 s | 906 MB |", ["188 s", "906 MB"]),
        ("a line that is\nwrapped after 300\nproblems, and\n> 5 s quoted", ["300", "5 s"]),
        ("A 4-billion-parameter model on GPUs of 43 GB.", ["4-billion", "43 GB"]),
        # None.
        ("## 12. Your own task\n\n**1. A baseline.** See section 7 and notebook 02, sections 3 and 12.", []),
        ("2. make problems, [Shao et al., 2024](https://arxiv.org/abs/2402.03300), arXiv:2402.03300", []),
        ("Qwen3-8B on p4d.24xlarge, FSDP2, NF4, 4 bits, 32, 16 and 4 bits, pass@1, 4-bit, S3", []),
        ("torch 2.13.0, Python 3.11 or 3.12, verl 0.9, since 2026.10.9, in 2026, on 2026-11-26", []),
        ("`max_steps=80`, $e^5 = 148$ and\n\n$$\\frac{1}{2} + 3$$\n\n```\nanswer 9\n```\nthree jobs, half a byte", []),
        ("as the 1st, steps 10 and 11, (02, 03), stage 3, one day, an hour, two processes", []),
        ("<img width=200>, <!-- 7 --> and http://127.0.0.1:8265", []),
    ],
)  # fmt: skip
def test_what_counts_as_a_claim(markdown, stated):
    assert [claim.number.text for claim in claims(markdown)] == stated


@pytest.mark.parametrize(
    "claim, shown, context, supported",
    [
        ("0.98", "0.9767", "", True),
        ("0.98", "0.974", "", False),
        ("0.980", "0.9767", "", False),
        ("98 %", "0.9767", "", True),
        ("2 minutes", "119 s", "", True),
        ("2 minutes", "169 s", "", False),
        ("two minutes", "1.9", "minutes of training", True),
        ("two minutes", "2", "a count", False),
        ("57 s", "56.872", "train_seconds", True),
        ("1.3 GB", "1,279 MB", "", True),
        ("1.3 GB", "1.3 MB", "", False),
        ("0.9 GB", "900", "peak_rss_mb", True),
        ("135 million", "134,515,008", "", True),
        ("5e-4", "0.0005", "", True),
        ("2,000", "2000", "", True),
        ("about 10 to 15 minutes", "600 s", "", True),
        ("6 GB", "of 6,082 tokens/s, 874 MB", "MB", False),  # where units are written, the rest has others
    ],
)
def test_what_supports_a_claim(claim, shown, context, supported):
    assert any(numbers(claim)[0].rounds(other) for other in numbers(shown, context)) is supported


TABLE = """<style>th {width: 31px}</style><table><caption>pass@1 of 300 problems</caption>
<thead><tr><th></th><th>rate</th><th>seconds a step</th></tr></thead>
<tbody><tr><th>slow</th><td>0.91</td><td>41</td></tr></tbody></table>"""


@pytest.fixture
def notebook(tmp_path):
    """Writes a notebook with these Markdown cells, beside a recipe and a recorded table; returns its path."""

    def write(*markdown: str, metadata: dict | None = None) -> Path:
        parameters = nbformat.v4.new_code_cell(
            'recipe = "tiny"\ntrain_problems = 1234', metadata={"tags": ["parameters"]}
        )
        jobs = "\n".join(f"job-{name}: Starting 2 s → Training 88 s → Completed" for name in "ab")
        shown = nbformat.v4.new_code_cell("run(15 * rate)", id="shown")
        shown.outputs = [
            nbformat.v4.new_output("stream", name="stdout", text="reward 0.25\n" + jobs),
            nbformat.v4.new_output("display_data", {"text/plain": jobs}),
            nbformat.v4.new_output("display_data", {"text/html": TABLE, "text/plain": "<Styler at 0x7f77>"}),
            nbformat.v4.new_output("display_data", {"image/png": "9999", "text/plain": "margin 2.796"}),
        ]
        cells = [nbformat.v4.new_markdown_cell(source, id=f"md-{i}") for i, source in enumerate(markdown)]
        cells[0].metadata.update(metadata or {})
        (tmp_path / "scripts" / "recipes").mkdir(parents=True)
        (tmp_path / "scripts" / "recipes" / "tiny.yaml").write_text(
            "max_steps: 80  # or 81\nmax_hours: 3\nmodel: hub:Qwen/Qwen3-4B\noptim:\n  rate: 1.5e-4\n"
        )
        (tmp_path / "recorded").mkdir()
        (tmp_path / "recorded" / "rates.csv").write_text("rate,train_seconds\n0.001,417.2\n")
        path = tmp_path / "example.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[parameters, *cells, shown]), path)
        return path

    return write


@pytest.mark.parametrize(
    "prose",
    [
        "A reward of 0.25, a margin of 2.80, a rate of 0.91, over 300 problems.",
        "A step takes 41 seconds.",
        "Both jobs together take three minutes.",  # 2 x (2 + 88) s
        "1,234 problems, 80 steps, at most 3 hours, 4 billion weights, a rate of 1.5e-4.",
        "Recorded: 417 s at a rate of 0.001.",
        "It fell by 77.7 % ([Ana, 2024](https://example.org)).",
    ],
)
def test_supported(notebook, prose):
    assert check_notebook(notebook(prose)) == ({}, [])


@pytest.mark.parametrize(
    "prose, unsupported",
    [
        ("A reward of 0.26.", "0.26"),
        ("A step takes 0.91 seconds.", "0.91 seconds"),  # it is a rate
        ("A column of 31 pixels, an image 9999.", "31 9999"),  # in markup and base64
        ("It takes 80 minutes.", "80 minutes"),  # it has 80 steps
        ("Or 81 steps.", "81"),  # another number in prose is no support
        ("It fell by 77.7 %. See [Ana, 2024](https://example.org).", "77.7 %"),
    ],
)
def test_unsupported(notebook, prose, unsupported):
    found, errors = check_notebook(notebook("No number.", prose))
    assert " ".join(texts(found)["md-1"]) == unsupported and errors == []


@pytest.mark.parametrize(
    "text, source, error",
    [
        ("15", "cell:shown", None),
        ("417 s", "file:recorded/rates.csv", None),
        ("63", "= 64 - 1", None),
        ("72", "= 0.9 * max_steps", None),
        ("2 minutes", "= 1.5 * max_steps / 60", None),
        ("15", "cell:gone", "there is no cell gone"),
        ("16", "cell:shown", "is not what 'cell:shown' says"),
        ("417 s", "file:recorded/none.csv", "is not cell:<id>"),
        ("63", "= 64 - 2", "is not what '= 64 - 2' says"),
        ("63", "= steps", "cannot be worked out"),
        ("63", "my notes", "is not cell:<id>"),
        ("64", "= 64", "is no claim of it"),
    ],
)
def test_what_the_metadata_say_is_looked_up(notebook, text, source, error):
    path = notebook(
        f"Here {'nothing' if error == 'is no claim of it' else text}.", metadata={"claims": {text: source}}
    )
    found, errors = check_notebook(path)
    assert found == {}
    assert [error in one for one in errors] == ([True] if error else [])


def test_the_readme_is_compared_with_the_notebooks_that_it_names(tmp_path):
    readme = tmp_path / "README.md"
    row = next(line for line in README.read_text().splitlines() if line.startswith("| 03_grpo_trl_fsdp | "))
    readme.write_text(f"# Results\n\n{row}\n{row.replace('03_grpo', '01_dpo').replace('MB', 'GB')}\n")
    assert all(text.endswith((" s", " GB")) or "," in text for text in texts(check_readme(readme))["Results"])
    readme.write_text(f"# Results\n\n{row}\n")
    assert check_readme(readme) == {}


def test_numbers_keep_how_exactly_they_were_written():
    assert numbers("0.980") == [Number("0.980", 0.98, pytest.approx(0.0005))]
