"""Fixtures that more than one test module uses, and how the tests are dealt out to workers (pytest -n)."""

import signal

import pytest
from endpoint_fixtures import endpoint, make_trainer  # noqa: F401
from xdist.scheduler import LoadScopeScheduling

NOTEBOOK_RUNS = "tests/test_notebooks_run.py"

# A shell that starts something in the background makes it ignore Ctrl-C, and so does all that it starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)


class FilesTogether(LoadScopeScheduling):
    """A file's tests stay in one worker (their endpoint, a notebook's kernel); runs of notebooks are dealt one by one."""

    def _split_scope(self, nodeid: str) -> str:
        return nodeid if nodeid.startswith(NOTEBOOK_RUNS) else nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> FilesTogether:
    """What `pytest -n` asks for."""
    return FilesTogether(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Runs of notebooks, which take longest, come first."""
    items.sort(key=lambda item: not item.nodeid.startswith(NOTEBOOK_RUNS))
