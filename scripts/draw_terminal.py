"""Draw what a terminal showed at one moment of a recorded `make run`, as an SVG for a document: docs/make_run.svg.

    script -qc "stty cols 90; make run ARGS='01 -p recipe=smoke'" -O build/run.typescript
    python scripts/draw_terminal.py build/run.typescript docs/make_run.svg --contains "training steps   2/3"

`script` (util-linux) gives the run a terminal and keeps every byte. Of the escape codes, those are understood that
scripts/runs/screen.py writes. The moment shown is the last one at which a line contains the words asked for.
"""

import argparse
import html
import re
import sys
from collections.abc import Iterator
from pathlib import Path

CHARACTER, LINE, MARGIN = 8.4, 20.0, 16.0  # pixels
_STYLE = (
    "rect{fill:#14171b}text{font:14px ui-monospace,Menlo,Consolas,'DejaVu Sans Mono',monospace;fill:#e8eaed;white-space:pre}"
    ".said{fill:#a0a9b4}"
)
_ERASE = re.compile(r"\x1b\[(\d+)F\x1b\[J")


def moments(recording: str) -> Iterator[list[str]]:
    """The lines on the terminal after each time that it was written to and erased."""
    lines: list[str] = []
    at = 0
    for found in _ERASE.finditer(recording):
        lines += recording[at : found.start()].splitlines()
        yield list(lines)
        del lines[len(lines) - int(found[1]) :]
        at = found.end()
    yield lines + recording[at:].splitlines()


def draw(lines: list[str]) -> str:
    """The lines as SVG; those that begin with a time of day are what stays, and are quieter."""
    width = MARGIN * 2 + CHARACTER * max(map(len, lines))
    height = MARGIN * 2 + LINE * len(lines)
    texts = []
    for number, line in enumerate(lines):
        kind = ' class="said"' if re.match(r"\d\d:\d\d:\d\d  ", line) else ""
        # The length is given, so that a font of another width does not break the bar.
        texts.append(
            f'<text x="{MARGIN:.0f}" y="{MARGIN + LINE * number + 15:.0f}"{kind} xml:space="preserve" '
            f'textLength="{CHARACTER * len(line):.1f}" lengthAdjust="spacingAndGlyphs">{html.escape(line)}</text>'
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img" '
        f'aria-label="make run in a terminal"><style>{_STYLE}</style><rect width="100%" height="100%" rx="8"/>\n'
        + "\n".join(texts)
        + "\n</svg>\n"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recording", type=Path)
    parser.add_argument("svg", type=Path)
    parser.add_argument("--contains", default="", help="words of the moment to draw")
    parser.add_argument("--lines", type=int, default=12, help="the last lines that are drawn")
    options = parser.parse_args(arguments)
    recording = options.recording.read_text(encoding="utf-8", errors="replace")
    # What `script` itself says about its beginning and end.
    recording = re.sub(r"^Script (started|done).*$", "", recording, flags=re.MULTILINE)
    shown = [lines for lines in moments(recording) if any(options.contains in line for line in lines)]
    if not shown:
        print(f"error: {options.recording} never shows {options.contains!r}", file=sys.stderr)
        return 2
    kept = [line for line in shown[-1] if line.strip()][-options.lines :]
    options.svg.write_text(draw(kept), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
