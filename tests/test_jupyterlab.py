"""A learner's way through a notebook in a real browser: JupyterLab, an edit of the parameters, Run All, live view, plots.

Chromium without a window, driven through chromedriver. Where one of them is not installed (Debian: apt-get install
chromium chromium-driver), the test is skipped.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from local_sagemaker import client

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "01_dpo_trl/01_dpo_trl.ipynb"
CHROMIUM, DRIVER = shutil.which("chromium") or shutil.which("google-chrome"), shutil.which("chromedriver")
QUIET = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1000",
]  # fmt: skip
TOKEN = "a-learner"
# One process instead of two: half of the work on two cores is to import the libraries.
EDITS = {
    "recipe": '"smoke"',
    "machine_changes": '{"process_count": 1}',
    "test_problems": "8",
    "train_problems": "64",
}
# What the notebook's own model says of each code cell: run at all, still running, its errors.
CELLS = """
const cells = [...window.jupyterapp.shell.currentWidget.content.widgets];
return cells.map((cell, index) => ({cell, index})).filter(({cell}) => cell.model.type === 'code').map(({cell, index}) => {
  const outputs = cell.model.outputs.toJSON();
  return {
    index, source: cell.model.sharedModel.getSource(), count: cell.model.executionCount,
    errors: outputs.filter(o => o.output_type === 'error').map(o => `${o.ename}: ${o.evalue}`),
    pictures: outputs.filter(o => o.data && o.data['image/png']).length,
    html: outputs.filter(o => o.data && o.data['text/html']).map(o => [o.data['text/html']].flat().join('')).join(' '),
  };
});
"""
SHOW = "return window.jupyterapp.shell.currentWidget.content.scrollToItem(arguments[0], 'center').then(() => null);"
# Pictures of one cell that the browser has really drawn: their widths.
DRAWN = """
const cell = window.jupyterapp.shell.currentWidget.content.widgets[arguments[0]];
return [...cell.node.querySelectorAll('.jp-OutputArea img')].map(img => img.complete ? img.naturalWidth : 0);
"""


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """What the notebook needs of the workshop, so that the edit is saved elsewhere than in this checkout."""
    for name in (NOTEBOOK.split("/")[0], "scripts"):
        shutil.copytree(
            ROOT / name, tmp_path / "workshop" / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("requirements.txt", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path / "workshop")
    return tmp_path / "workshop"


@pytest.fixture
def lab(copy: Path, tmp_path: Path):
    """A JupyterLab with settings of its own on the copy; its address with the token."""
    python = ROOT / ".venv" / "bin" / "python"
    environment = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("LOCAL_SAGEMAKER_HOME", "JUPYTER"))
    }
    environment |= {
        f"JUPYTER_{kind}_DIR": str(tmp_path / "jupyter" / kind.lower())
        for kind in ("CONFIG", "DATA", "RUNTIME")
    }
    command = [
        str(python if python.exists() else sys.executable),
        "-m",
        "jupyterlab",
        "--no-browser",
        "--allow-root",
    ]
    command += [
        "--port=0",
        "--ip=127.0.0.1",
        f"--IdentityProvider.token={TOKEN}",
        "--LabApp.expose_app_in_browser=True",
    ]
    command += ["--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate"]
    with open(tmp_path / "lab.log", "w") as log:
        server = subprocess.Popen(
            command, cwd=copy, env=environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        address = None
        deadline = time.monotonic() + 180
        while address is None:
            found = re.search(r"http://127\.0\.0\.1:\d+/lab\?token=", (tmp_path / "lab.log").read_text())
            address = found and found[0].split("?")[0]
            assert server.poll() is None and time.monotonic() < deadline, (tmp_path / "lab.log").read_text()
            time.sleep(0.2)
        yield address
    finally:
        server.terminate()  # it ends its kernels
        server.wait(60)
        client.shutdown(copy / "build" / "local_sagemaker")


@pytest.fixture
def browser(tmp_path: Path):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in [*QUIET, f"--user-data-dir={tmp_path / 'browser'}"]:
        options.add_argument(argument)
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.timeout(1500)
@pytest.mark.skipif(
    not (CHROMIUM and DRIVER),
    reason="needs chromium and chromedriver (apt-get install chromium chromium-driver)",
)
def test_a_learner_edits_the_parameters_and_runs_all_cells(copy, lab, browser):
    from selenium.webdriver.support.ui import WebDriverWait

    wait = WebDriverWait(browser, 180)
    browser.get(f"{lab}/tree/{NOTEBOOK}?token={TOKEN}")
    wait.until(lambda b: b.execute_script(
        "const w = window.jupyterapp?.shell.currentWidget; return !!w?.content?.widgets?.length && w.sessionContext.isReady"
    ))  # fmt: skip
    edit_parameters(browser)
    choose(browser, wait, "Run", "Run All Cells")

    deadline, live, cells = time.monotonic() + 1200, None, []
    while not cells or any(cell["count"] is None for cell in cells if cell["source"].strip()):
        assert time.monotonic() < deadline, [cell["source"] for cell in cells if cell["count"] is None][:1]
        time.sleep(1)
        cells = browser.execute_script(CELLS)
        assert not [cell["errors"] for cell in cells if cell["errors"]]
        live = live or live_view(browser, cells)
    assert live and 0 < live["step"] <= live["of"], (
        "the live view never showed a step of a job that was training"
    )

    for cell in cells:
        if cell["pictures"]:
            browser.execute_script(SHOW, cell["index"])
            wait.until(lambda b, i=cell["index"]: (w := b.execute_script(DRAWN, i)) and min(w) > 100)
    assert sum(cell["pictures"] for cell in cells) >= 5
    (ROOT / "build").mkdir(exist_ok=True)
    browser.save_screenshot(str(ROOT / "build" / "jupyterlab.png"))
    browser.execute_script("return window.jupyterapp.commands.execute('docmanager:save').then(() => null)")
    saved = copy / NOTEBOOK
    wait.until(lambda _: 'recipe = \\"smoke\\"' in saved.read_text())
    (result,) = json.loads((copy / "build" / "results.json").read_text())
    assert result["recipe"] == "smoke" and result["base"]["n"] == 8  # the edit is what ran


def edit_parameters(browser) -> None:
    """Type new values over the old ones, as one does, with mouse and keyboard."""
    from selenium.webdriver import ActionChains, Keys
    from selenium.webdriver.common.by import By

    for name, value in EDITS.items():
        line = browser.find_element(By.XPATH, f"//div[@class='cm-line'][starts-with(., '{name} = ')]")
        line.click()
        keys = (
            ActionChains(browser)
            .send_keys(Keys.HOME)
            .key_down(Keys.SHIFT)
            .send_keys(Keys.END)
            .key_up(Keys.SHIFT)
        )
        keys.send_keys(f"{name} = {value}").perform()


def choose(browser, wait, menu: str, entry: str) -> None:
    """Click an entry of JupyterLab's menu bar."""
    from selenium.webdriver.common.by import By

    browser.find_element(By.XPATH, f"//div[contains(@class, 'lm-MenuBar-itemLabel')][.='{menu}']").click()
    found = (By.XPATH, f"//div[contains(@class, 'lm-Menu-itemLabel')][.='{entry}']")
    wait.until(lambda b: b.find_elements(*found))[0].click()


def live_view(browser, cells: list[dict]) -> dict | None:
    """The step and the number of steps that the browser shows of a job that still trains; None if it shows none now."""
    for cell in cells:
        if "watch(" not in cell["source"]:
            continue
        shown = browser.execute_script(
            "return window.jupyterapp.shell.currentWidget.content.widgets[arguments[0]].node.textContent",
            cell["index"],
        )
        found = re.search(r"\u2192 Training \d+ s.*?(\d+)/(\d+) \[", shown, re.DOTALL)
        if found and "\u2192 Completed" not in shown:
            return {"step": int(found[1]), "of": int(found[2])}
    return None
