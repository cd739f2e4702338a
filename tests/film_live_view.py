"""Films the live view of notebook 02's training in JupyterLab, in real Chromium: docs/live_view.gif. No test, and not collected.

.venv-dev/bin/python -m pytest -n 0 tests/film_live_view.py
"""

import io
import time

import pytest
import test_jupyterlab
from PIL import Image
from selenium.webdriver.support.ui import WebDriverWait
from test_jupyterlab import CELLS, SHOW, TOKEN, browser, choose, copy, lab  # noqa: F401

FILM = test_jupyterlab.ROOT / "docs" / "live_view.gif"
test_jupyterlab.NOTEBOOK = "02_grpo_trl_accelerate/02_grpo_trl_accelerate.ipynb"  # that the fixtures copy
JOB = "history = watch(trainer)"  # stands in the cell whose output is filmed
EVERY_S, SHOWN_MS, LAST_MS = 9.0, 700, 3000
COLOURS, MOST_BYTES = 20, 800_000


@pytest.mark.timeout(1500)
def test_film(lab, browser):  # noqa: F811
    wait = WebDriverWait(browser, 180)
    browser.get(f"{lab}/tree/{test_jupyterlab.NOTEBOOK}?token={TOKEN}")
    wait.until(lambda b: b.execute_script(
        "const w = window.jupyterapp?.shell.currentWidget; return !!w?.content?.widgets?.length && w.sessionContext.isReady"
    ))  # fmt: skip
    choose(browser, wait, "Run", "Run All Cells")
    cell = next(cell["index"] for cell in browser.execute_script(CELLS) if JOB in cell["source"])
    count = "return window.jupyterapp.shell.currentWidget.content.widgets[arguments[0]].model.executionCount"
    frames: list[Image.Image] = []
    while browser.execute_script(count, cell) is None:
        browser.execute_script(SHOW, cell)
        if (frame := picture(browser, cell)) is not None:
            frames.append(frame)
        time.sleep(EVERY_S)
    frames.append(picture(browser, cell))
    save(frames)


def picture(browser, cell: int) -> Image.Image | None:  # noqa: F811
    """What the output of a cell looks like now; None while there is none."""
    node = browser.execute_script(
        "return window.jupyterapp.shell.currentWidget.content.widgets[arguments[0]].node.querySelector('.jp-OutputArea-output')",
        cell,
    )
    browser.execute_script("document.querySelectorAll('.Toastify').forEach(toast => toast.remove())")
    if node is None or node.size["height"] < 100:
        return None
    return Image.open(io.BytesIO(node.screenshot_as_png)).convert("RGB")


def save(frames: list[Image.Image]) -> None:
    """All frames in the size of the largest, white where one is smaller; equal ones in a row are shown longer."""
    width, height = max(frame.width for frame in frames), max(frame.height for frame in frames)
    pages = []
    for frame in frames:
        page = Image.new("RGB", (width, height), "white")
        page.paste(frame, (0, 0))
        page = page.resize((width * 3 // 4, height * 3 // 4), Image.Resampling.LANCZOS)
        pages.append(page.quantize(COLOURS, dither=Image.Dither.NONE))
    pages[0].save(
        FILM,
        save_all=True,
        append_images=pages[1:],
        duration=[SHOWN_MS] * (len(pages) - 1) + [LAST_MS],
        loop=0,
        optimize=True,
    )
    assert FILM.stat().st_size < MOST_BYTES, FILM.stat().st_size
