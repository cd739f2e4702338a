"""Numbers that prose states, and what they rest on.

    python tests/claims.py            # every number without support, by document and place
    python tests/claims.py 02         # those of one notebook

A claim is a number in Markdown that could be wrong: 0.98, 95 %, 64 completions, "33 seconds", "a minute and a half", "half a
million parameters". Numbers of sections, years, dates, versions, names (Qwen3-8B, pass@1, 4 bits), code, formulas and small
counts in words are none. A claim is supported if it is found, at its own precision and in its own unit,

- in an output of a code cell of the same notebook (text, tables, the words beside a figure), or is the sum of the times that
  its jobs took,
- in the notebook's parameters, its module's recipes and machines.yaml, or a CSV under the module's recorded/,
- or if its sentence or table row has a link to its source. A link to another module is looked up in that one's notebook.

Whatever else it rests on is said in the Markdown cell's metadata, and looked up there:

    "claims": {"15": "cell:cell-56", "0.91": "file:recorded/rates.csv", "63": "= 64 - 1", "72": "= 0.9 * max_steps"}

The keys are the claims as `python tests/claims.py` prints them. `cell:` is a cell's source or outputs, `file:` lies beside the
notebook, and `=` is arithmetic, in the claim's unit, on the notebook's parameters and the values of the recipe they choose.
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import nbformat
from claim_evidence import evidence, named_source
from written_numbers import Number, any_of, numbers

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
README = ROOT / "README.md"

# What has digits in prose, besides names, and claims nothing.
PRODUCTS = "Python PyTorch torch TRL vLLM verl CUDA transformers bitsandbytes Ray SDK Unsloth JupyterLab MLflow".split()
PLACES = "section notebook module exercise equation table figure step row line column page stage process host rank".split()
NO_CLAIMS = re.compile(
    rf"\b(?:{any_of(PRODUCTS)}) \d+(?:\.\d+)*(?:(?:,| or| and) \d+\.\d+)*"
    rf"|\b(?:{any_of(PLACES)})s? \d+(?![\d.]*\.\d)(?:(?:,| or| and| to|–|-) ?\d+\b)*"
    r"|\b0\d\b"  # the modules: 02
    r"|\b20[123]\d\b(?!-\d| (?:tokens|bytes|problems|questions|prompts|pairs|completions|steps))"  # years
    r"|\b\d+(?:(?:,| and| or) \d+)*[- ]bits?\b",  # number formats
    re.IGNORECASE,
)
CODE = re.compile(r"(?ms)^ *```.*?^ *```|(?<!`)(`+)(?!`).+?(?<!`)\1(?!`)|<!--.*?-->|<[a-z/][^>]*>")
FORMULA = re.compile(r"(?s)\$\$.+?\$\$|(?<![\\$])\$(?=\S)(?:[^$\n]|\n(?!\n))*?(?<=\S)\$(?!\d)")
LINK = re.compile(r"!?\[([^\]]*)\]\([^)]*\)|https?://\S+")
MODULE_LINK = re.compile(r"\]\((?:\.\./)?(0\d)_\w+/?[^)]*\)")


@dataclass(frozen=True)
class Claim:
    """A number that prose states, with its sentence or table row."""

    number: Number
    sentence: str

    def has_source(self) -> bool:
        """Whether the sentence has a link to something that is not a module."""
        return bool(LINK.search(MODULE_LINK.sub("", self.sentence)))

    def rests_on(self, notebook: Path) -> bool:
        """Whether the notebook supports it."""
        return any(self.number.rounds(other) for other in evidence(notebook))


def claims(markdown: str) -> list[Claim]:
    """The claims of a Markdown text, in order."""
    text = FORMULA.sub("·", CODE.sub("·", markdown))
    text = re.sub(r"(?m)^ *> ?", "", text)
    found = []
    for block in re.split(r"\n\s*\n|\n(?= *(?:[-*+] |\d+\. |\||#))", text):
        block = re.sub(r"^ *(?:#+ *(?:\d+\. )?|[-*+] |\d+\. |\*\*\d+\. )", "", " ".join(block.split()))
        whole = block.startswith("|")
        for sentence in [block] if whole else re.split(r"(?<=[.!?])[)*_\"]* (?=[A-Z*_(\"\[·])", block):
            plain = NO_CLAIMS.sub("·", LINK.sub(lambda match: match[1] or "·", sentence))
            found += [Claim(number, sentence) for number in numbers(plain)]
    return found


def check_notebook(path: Path) -> tuple[dict[str, list[Claim]], list[str]]:
    """The notebook's claims without support by cell id, and what is wrong with its cells' metadata, in words."""
    notebook = nbformat.read(path, as_version=4)
    unsupported: dict[str, list[Claim]] = {}
    errors = []
    for cell in notebook.cells:
        if cell.cell_type != "markdown":
            continue
        stated = claims(cell.source)
        sources = cell.metadata.get("claims", {})
        unused = sorted(sources.keys() - {claim.number.text for claim in stated})
        errors += [f"{cell.id}: its metadata explain {text!r}, which is no claim of it" for text in unused]
        for claim in stated:
            number, source = claim.number, sources.get(claim.number.text)
            if source is None:
                others = [
                    other for other in NOTEBOOKS if other.name[:2] in MODULE_LINK.findall(claim.sentence)
                ]
                if not claim.has_source() and not any(claim.rests_on(one) for one in [path, *others]):
                    unsupported.setdefault(cell.id, []).append(claim)
                continue
            try:
                if not any(number.rounds(other) for other in named_source(path, notebook, number, source)):
                    errors.append(f"{cell.id}: {number.text!r} is not what {source!r} says")
            except ValueError as error:
                errors.append(f"{cell.id}: {number.text!r}: {error}")
    return unsupported, errors


def check_readme(path: Path = README) -> dict[str, list[Claim]]:
    """The claims of a README without support by heading.

    A sentence or row that names modules speaks of their notebooks, any other one of all five: each must support it.
    """
    unsupported: dict[str, list[Claim]] = {}
    for part in re.split(r"(?m)^(?=#+ )", CODE.sub("·", path.read_text(encoding="utf-8"))):
        heading = part.partition("\n")[0].lstrip("# ")
        for claim in claims(part):
            modules = set(re.findall(r"\b0\d(?!\d)", claim.sentence))
            named = [notebook for notebook in NOTEBOOKS if notebook.name[:2] in modules]
            found = [claim.rests_on(notebook) for notebook in named or NOTEBOOKS]
            if not claim.has_source() and not (any(found) if named else all(found)):
                unsupported.setdefault(heading, []).append(claim)
    return unsupported


def main(wanted: list[str]) -> None:
    """Print the list of claims without support."""
    for path in [*NOTEBOOKS, README]:
        name = path.parent.name if path.suffix == ".ipynb" else path.name
        if wanted and not name.startswith(tuple(wanted)):
            continue
        unsupported, errors = check_notebook(path) if path.suffix == ".ipynb" else (check_readme(path), [])
        print(f"{name}: {sum(map(len, unsupported.values()))} claims without support")
        for place, found in unsupported.items():
            for claim in found:
                print(f"  {place}: {claim.number.text}   <- {claim.sentence[:160]}")
        print("".join(f"  {error}\n" for error in errors), end="")


if __name__ == "__main__":
    main(sys.argv[1:])
