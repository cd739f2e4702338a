"""Small drawings as inline SVG: a training curve, and two measurements with their intervals. Colours are the page's."""

import html
import math

_WIDTH, _HEIGHT = 320.0, 150.0
_LEFT, _RIGHT, _TOP, _BOTTOM = 56.0, 310.0, 26.0, 128.0  # of a curve's field


def curve(title: str, steps: list[float], values: list[float]) -> str:
    """One metric over the optimizer's steps, with its least and greatest value at the side and the last at its end.

    Raises ValueError for no values, or one that is not finite.
    """
    if not values or len(steps) != len(values) or not all(map(math.isfinite, [*steps, *values])):
        raise ValueError("A curve needs as many finite values as steps, and at least one.")
    low, high = min(values), max(values)
    points = [
        (_between(step, steps[0], steps[-1], _LEFT, _RIGHT), _between(value, low, high, _BOTTOM, _TOP))
        for step, value in zip(steps, values, strict=True)
    ]
    line = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    x, y = points[-1]
    spoken = f"{title}: {values[0]:.3g} at step {steps[0]:g}, {values[-1]:.3g} at step {steps[-1]:g}"
    parts = [
        _text(0, 13, f"{title}: {values[-1]:.3g}", "title"),
        f'<path class="axis" d="M{_LEFT:.0f} {_TOP:.0f}V{_BOTTOM:.0f}H{_RIGHT:.0f}"/>',
        _text(_LEFT - 5, _TOP + 4, f"{high:.3g}", "end") if high > low else "",
        _text(_LEFT - 5, (_BOTTOM if high > low else y) + 4, f"{low:.3g}", "end"),
        _text(_LEFT, _HEIGHT - 6, f"step {steps[0]:g}", ""),
        _text(_RIGHT, _HEIGHT - 6, f"{steps[-1]:g}", "end") if len(steps) > 1 else "",
        f'<polyline class="line" points="{line}"/>',
        f'<circle class="dot" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>',
    ]
    return _svg(_WIDTH, _HEIGHT, spoken, parts)


def intervals(title: str, rows: dict[str, dict[str, float]]) -> str:
    """Shares from 0 to 1 as dots with their intervals, a row for each name: {"value", "low", "high"}."""
    left, right, top, pitch = 10.0, 310.0, 46.0, 40.0
    bottom = top + pitch * (len(rows) - 1) + 14
    spoken = f"{title}: " + "; ".join(f"{name} {_measured(row)}" for name, row in rows.items())
    parts = [_text(0, 13, title, "title")]
    for share, anchor in ((0, ""), (0.5, "middle"), (1, "end")):
        x = _between(share, 0, 1, left, right)
        parts.append(f'<path class="axis" d="M{x:.1f} {top - 14:.0f}V{bottom:.0f}"/>')
        parts.append(_text(x, bottom + 15, f"{share:g}", anchor))
    for number, (name, row) in enumerate(rows.items()):
        y = top + pitch * number
        low, value, high = (_between(row[key], 0, 1, left, right) for key in ("low", "value", "high"))
        parts += [
            # Over the line that it crosses.
            f'<rect class="ground" x="{left + 4:.0f}" y="{y - 22:.0f}" width="175" height="15"/>',
            _text(left + 6, y - 10, f"{name} {_measured(row)}", "measured"),
            f'<path class="whisker row{number}" d="M{low:.1f} {y:.0f}H{high:.1f}"/>',
            f'<circle class="dot row{number}" cx="{value:.1f}" cy="{y:.0f}" r="5"/>',
        ]
    return _svg(_WIDTH, bottom + 20, spoken, parts)


def _measured(row: dict[str, float]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _between(value: float, low: float, high: float, start: float, end: float) -> float:
    """`value` of [low, high] on the way from `start` to `end`; halfway where the two are one."""
    return start + (end - start) * ((value - low) / (high - low) if high > low else 0.5)


def _text(x: float, y: float, text: str, kind: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}">{html.escape(text)}</text>'


def _svg(width: float, height: float, spoken: str, parts: list[str]) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" role="img" aria-label="{html.escape(spoken)}">'
        f"{''.join(parts)}</svg>"
    )
