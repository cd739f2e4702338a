"""What a notebook shows as HTML and a terminal as text, and the plain table that most views are."""

import html
from collections.abc import Iterable


class HtmlView:
    """Something a notebook shows as HTML and a terminal as text."""

    def __init__(self, html_text: str, text: str) -> None:
        self.html, self.text = html_text, text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text


def table(header: Iterable[str], rows: Iterable[Iterable[str]], caption: str = "") -> HtmlView:
    """A plain table of texts, for notebook and terminal."""
    lines = [tuple(map(str, header)), *(tuple(map(str, row)) for row in rows)]
    widths = [max(len(cell) for cell in column) for column in zip(*lines, strict=True)]
    text = "\n".join(
        "  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines
    )
    head, *body = [[html.escape(cell) for cell in line] for line in lines]
    html_rows = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in line)}</tr>" for line in body)
    html_head = "".join(f"<th>{cell}</th>" for cell in head)
    html_caption = f"<caption>{html.escape(caption)}</caption>" if caption else ""
    return HtmlView(
        f"<table>{html_caption}<thead><tr>{html_head}</tr></thead><tbody>{html_rows}</tbody></table>",
        "\n".join(filter(None, [caption, text])),
    )
