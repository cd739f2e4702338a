"""Let the notebooks of this checkout ask for the kernel "RL workshop", where `make studio` has registered it.

    python3 scripts/name_kernel.py

Committed, they name python3, which every Jupyter has. In SageMaker Studio python3 is JupyterLab's own environment, without
the workshop's packages. So here their metadata name the other kernel, and a filter of this clone alone (in .git) gives git
the committed name, so that no notebook looks changed.
"""

import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILTER = "workshop-kernel"
COMMITTED = ('"display_name": "Python 3"', '"name": "python3"')
HERE = ('"display_name": "RL workshop"', '"name": "rl-workshop"')


def main() -> None:
    notebooks = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
    cloned = (ROOT / ".git").exists()  # or downloaded as an archive
    mine = git("diff", "--name-only", "HEAD").splitlines() if cloned else []
    if cloned:
        git("config", f"filter.{FILTER}.clean", sed(HERE, COMMITTED))
        git("config", f"filter.{FILTER}.smudge", sed(COMMITTED, HERE))
        attributes = ROOT / git("rev-parse", "--git-path", "info/attributes")
        line = f"*.ipynb filter={FILTER}\n"
        before = attributes.read_text() if attributes.exists() else ""
        if line not in before:
            attributes.parent.mkdir(exist_ok=True)
            attributes.write_text(before + line)
    for notebook in notebooks:
        text = notebook.read_text(encoding="utf-8")
        for committed, here in zip(COMMITTED, HERE, strict=True):
            text = text.replace(committed, here)
        notebook.write_text(text, encoding="utf-8")
        name = notebook.relative_to(ROOT).as_posix()
        if cloned and name not in mine:
            git("add", name)  # stages nothing: git only learns the file's new size, by which it tells changes


def sed(old: tuple[str, ...], new: tuple[str, ...]) -> str:
    """A command that replaces each of `old` by its counterpart."""
    return "sed " + " ".join(f"-e 's/{one}/{other}/'" for one, other in zip(old, new, strict=True))


def git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
