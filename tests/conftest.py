"""What holds for all tests: their markers, the fixtures that files share, and how they are dealt out to workers (pytest -n)."""

import signal
import sys
from typing import Any

import pytest
from endpoint_fixtures import endpoint, make_trainer  # noqa: F401
from own_rewards import write  # noqa: F401
from preflight_fixtures import data, make_request, model, source  # noqa: F401
from xdist.scheduler import LoadScopeScheduling

NOTEBOOK_RUNS = "tests/test_notebooks_run.py"
# Words of a command line -> the marker without which a test may not start it.
GUARDED = {
    ("local_sagemaker", "serve"): "endpoint",
    ("torch.distributed.run",): "job",
    ("forked_jobs.fork_job",): "job",
}

_current: list[pytest.Item] = []

# A shell that starts something in the background makes it ignore Ctrl-C, and so does all that it starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)


class FilesTogether(LoadScopeScheduling):
    """A file's tests stay in one worker (their endpoint, a notebook's kernel); runs of notebooks are dealt one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(NOTEBOOK_RUNS) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether:
    """What `pytest -n` asks for."""
    return FilesTogether(config, log)


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks what fixtures and kinds of files decide. Runs of notebooks, which take longest, come first."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker("notebook")
        if any(name.endswith("endpoint") for name in getattr(item, "fixturenames", ())):
            item.add_marker("endpoint")
    items.sort(key=lambda item: not item.nodeid.startswith(NOTEBOOK_RUNS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Any:
    """Tells the guard below whose processes are started, those of fixtures included."""
    _current[:] = [item]
    try:
        return (yield)
    finally:
        _current.clear()


@pytest.fixture(autouse=True)
def _no_endpoint_unless_marked(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process started by an unmarked test finds no place for an endpoint, so that it cannot start one either."""
    if not {"endpoint", "notebook"} & {marker.name for marker in request.node.iter_markers()}:
        monkeypatch.setenv("LOCAL_SAGEMAKER_HOME", "/dev/null/this test needs the marker endpoint")


def _refuse_unmarked(event: str, arguments: tuple) -> None:
    """`make check` is quick as long as what is slow has its marker; a test without it may not start such a process."""
    if not _current or event not in ("subprocess.Popen", "forked_jobs.fork_job"):
        return
    command = [str(word) for word in arguments[1]] if event == "subprocess.Popen" else [event]
    for words, marker in GUARDED.items():
        if set(words) <= set(command) and not any(_current[0].iter_markers(marker)):
            raise RuntimeError(
                f"{_current[0].nodeid} starts {' '.join(words)}, but it has no marker {marker}."
            )


sys.addaudithook(_refuse_unmarked)
