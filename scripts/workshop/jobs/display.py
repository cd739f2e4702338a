"""Show a running job: one display that is redrawn in a notebook, plain lines and a tqdm bar in a terminal."""

import base64
import html
import sys
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import datetime

from job.metrics import Metrics
from tqdm import tqdm

from workshop.text_colours import QUIET
from workshop.views.plots import Panel, draw_curve, new_figure, png, points

LOG_LINES_SHOWN = 8
LOG_LINE_WIDTH = 150  # characters
_LIVE_CURVES = (
    Panel("reward", "Reward while training", "mean reward"),
    Panel("loss", "Loss while training", "loss"),
)


@dataclass
class JobView:
    """What is known about a running job at one moment."""

    name: str
    status: str = "InProgress"
    phases: list[tuple[str, datetime, datetime | None]] = field(default_factory=list)  # name, start, end
    history: list[Metrics] = field(default_factory=list)
    max_steps: int | None = None
    step_times: list[float] = field(default_factory=list)  # when each step's line was written, seconds
    log: deque[str] = field(default_factory=lambda: deque(maxlen=200))
    note: str = ""  # why nothing new is shown
    stall: str = ""  # what the job said of steps that do not come, until the next one

    @property
    def trains(self) -> bool:
        """Whether the containers run."""
        return bool(self.phases) and self.phases[-1][0] in ("Training", "Uploading", "Stopping")

    def phase_line(self) -> str:
        """ "Starting 2 s, Downloading 1 s, Training 63 s ..." """
        now = datetime.now().astimezone()
        parts = []
        for name, start, end in self.phases:
            terminal = name == self.phases[-1][0] and self.status != "InProgress"
            parts.append(
                name if terminal else f"{name} {max(0, ((end or now) - start).total_seconds()):.0f} s"
            )
        return " \u2192 ".join(parts) or self.status

    def progress_bar(self) -> str:
        """tqdm's bar for the steps done, or "" while the number of steps is unknown."""
        if not self.history or self.max_steps is None:
            return ""
        first, last = self.history[0], self.history[-1]
        seconds = self.step_times[-1] - self.step_times[0]
        return tqdm.format_meter(
            last["step"],
            self.max_steps,
            elapsed=seconds,
            rate=(last["step"] - first["step"]) / seconds if seconds > 0 else None,
            unit="step",
            ncols=72,
        )


class NotebookDisplay:
    """One output that is replaced at every update, so that an executed notebook keeps only the last state."""

    def __init__(self) -> None:
        self._id = f"job-{uuid.uuid4().hex}"
        self._shown = False
        self._curve = ""
        self._curve_steps = 0

    def update(self, view: JobView) -> None:
        """Redraw; the curve only when there are new steps."""
        from IPython.display import display, update_display

        if len(view.history) != self._curve_steps:
            self._curve, self._curve_steps = _curve_image(view.history), len(view.history)
        content = {"text/html": _html(view, self._curve), "text/plain": _text(view)}
        (update_display if self._shown else display)(content, raw=True, display_id=self._id)
        self._shown = True


class TerminalDisplay:
    """Phase changes and metrics as lines, above a tqdm bar on a terminal."""

    def __init__(self) -> None:
        self._phases = 0
        self._note = ""
        self._bar: tqdm | None = None

    def update(self, view: JobView) -> None:
        """Print what is new."""
        for name, _, _ in view.phases[self._phases :]:
            tqdm.write(f"{view.name}: {name}")
        self._phases = len(view.phases)
        if view.note != self._note:
            self._note = view.note
            if view.note:
                tqdm.write(f"{view.name}: {view.note}")
        if view.history and view.max_steps is not None:
            last = view.history[-1]
            if self._bar is None:
                self._bar = tqdm(total=view.max_steps, unit="step", disable=None)
            self._bar.set_postfix(
                {key: f"{last[key]:.3g}" for key in ("reward", "loss") if key in last}, refresh=False
            )
            self._bar.n = last["step"]
            self._bar.refresh()
        if view.status != "InProgress":
            if self._bar is not None:
                self._bar.close()
            tqdm.write(_text(view))


def new_display() -> NotebookDisplay | TerminalDisplay:
    """The display that suits where this runs: a Jupyter kernel (papermill too) or a terminal."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return NotebookDisplay() if getattr(shell, "kernel", None) else TerminalDisplay()


def _curve_image(history: list[Metrics]) -> str:
    for panel in _LIVE_CURVES:
        steps, values = points(history, panel.key)
        if len(steps) >= 2:
            figure = new_figure(6.5, 2.2)
            axes = figure.subplots()
            draw_curve(axes, steps, values, panel)
            axes.set_xlabel("optimizer step")
            data = base64.b64encode(png(figure)).decode()
            return f'<img alt="{panel.title}" src="data:image/png;base64,{data}">'
    return ""


def _last_lines(view: JobView) -> list[str]:
    return [line[:LOG_LINE_WIDTH] for line in list(view.log)[-LOG_LINES_SHOWN:]]


def _html(view: JobView, curve: str) -> str:
    bar, lines = html.escape(view.progress_bar()), html.escape("\n".join(_last_lines(view)))
    note = f"<div><i>{html.escape(view.note)}</i></div>" if view.note else ""
    return (
        f"<div><b>{html.escape(view.name)}</b>: {html.escape(view.phase_line())}</div>{note}"
        f'<pre style="margin:4px 0">{bar}</pre>{curve}'
        f'<pre style="margin:4px 0;font-size:85%;color:{QUIET};white-space:pre-wrap">{lines}</pre>'
    )


def _text(view: JobView) -> str:
    return "\n".join(
        filter(
            None, [f"{view.name}: {view.phase_line()}", view.note, view.progress_bar(), *_last_lines(view)]
        )
    )
