"""Each word of docs/glossary.md is used in the notebook and the section that it names, and has a source."""

import re
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "glossary.md"
TEXT = PAGE.read_text(encoding="utf-8")
INTRODUCTION = "introduction"
ENTRY = re.compile(
    r"^- \*\*(?P<term>[^*]+)\*\*(?: \((?P<also>[^)]+)\))?: (?P<meaning>.+)\n"
    r"  \[(?P<module>0\d)\], (?:section )?(?P<section>\w+)\. Source: \[[^]]+\]\(\S+\)\.$",
    re.MULTILINE,
)


@dataclass(frozen=True)
class Entry:
    """A word, what else it is called, and where it is met."""

    term: str
    also: str | None
    module: str
    section: str


ENTRIES = [Entry(m["term"], m["also"], m["module"], m["section"]) for m in ENTRY.finditer(TEXT)]


def sections(module: str) -> dict[str, str]:
    """What can be read in a notebook by number of section: its text, code and outputs, the words of figures among them."""
    (path,) = ROOT.glob(f"{module}_*/*.ipynb")
    found, current = {INTRODUCTION: ""}, INTRODUCTION
    for cell in nbformat.read(path, as_version=4).cells:
        # A Markdown cell may end one section and begin the next.
        parts = (
            re.split(r"(?m)^(?=## \d+\. )", cell.source) if cell.cell_type == "markdown" else [cell.source]
        )
        for output in cell.get("outputs", []):
            parts.append(output.get("text") or output.get("data", {}).get("text/plain", ""))
        for part in parts:
            if cell.cell_type == "markdown" and (heading := re.match(r"## (\d+)\. ", part)):
                current = heading[1]
            found[current] = found.get(current, "") + part + "\n"
    return found


def occurs(words: str, text: str) -> bool:
    """Whether the words are in the text, on one line or over two, also as the beginning of a longer word."""
    pattern = r"\s+".join(map(re.escape, words.split()))
    return bool(re.search(rf"(?<![A-Za-z]){pattern}", text, re.IGNORECASE))


def test_every_entry_has_its_two_lines():
    assert len(ENTRIES) == len(re.findall(r"(?m)^- ", TEXT)) >= 30
    assert len({entry.term for entry in ENTRIES}) == len(ENTRIES)


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.term)
def test_a_word_occurs_where_the_glossary_says(entry):
    text = sections(entry.module)[entry.section]
    assert any(occurs(words, text) for words in (entry.term, entry.also) if words)


def test_each_module_has_its_link():
    links = dict(re.findall(r"(?m)^\[(0\d)\]: (\S+)$", TEXT))
    assert set(links) >= {entry.module for entry in ENTRIES}
    for module, target in links.items():
        assert (PAGE.parent / target).is_file() and Path(target).name.startswith(module)


def test_what_occurs():
    text = "The *importance\nratio* is 1, and nothing is over-clipped. FSDP2 shards it."
    assert occurs("importance ratio", text) and occurs("FSDP", text) and occurs("shard", text)
    assert not occurs("hard", text) and not occurs("policy", text)
