"""Every job of every notebook with every recipe, as AWS would get it: compared with the golden files and the table."""

import difflib
from pathlib import Path

import pytest
import request_matrix
from run_notebooks import find_notebooks

ROOT = Path(__file__).resolve().parents[1]


pytestmark = [pytest.mark.endpoint, pytest.mark.timeout(30 * 60)]
AGAIN = "if the change is meant, run scripts/request_matrix.py and look at the difference in git"


@pytest.fixture(scope="module")
def matrix(tmp_path_factory):
    return request_matrix.collect(find_notebooks([]), tmp_path_factory.mktemp("matrix"))


def test_no_job_of_any_cell_is_refused(matrix):
    assert [
        (module, recipe, job["name"], check["name"], check["detail"])
        for module, recipes in matrix.items()
        for recipe, jobs in recipes.items()
        for job in jobs
        for check in job["checks"]
        if check["status"] == "problem"
    ] == []


def test_the_requests_are_the_golden_ones(matrix):
    for module, recipes in matrix.items():
        golden = (request_matrix.GOLDEN / f"{module}.json").read_text(encoding="utf-8")
        made = request_matrix.golden_text(recipes)
        difference = list(difflib.unified_diff(golden.splitlines(), made.splitlines(), "golden", "now", n=1))
        assert not difference, f"{module}: {AGAIN}\n" + "\n".join(difference[:80])


def test_the_table_is_current(matrix):
    made = request_matrix.table_text(matrix)
    difference = list(
        difflib.unified_diff(request_matrix.TABLE.read_text().splitlines(), made.splitlines(), n=0)
    )
    assert not difference, f"{AGAIN}\n" + "\n".join(difference[:40])


def test_every_recipe_starts_the_jobs_that_apply_to_it(matrix):
    names = {
        (module[:2], recipe): [job["name"] for job in jobs]
        for module, recipes in matrix.items()
        for recipe, jobs in recipes.items()
    }
    assert all(names.values())
    # Not sharded, Qwen3-4B fits no GPU of 48 GB.
    assert "grpo-layout-3" in names["03", "small"] and "grpo-layout-3" not in names["03", "full"]
    assert "grpo-qlora" in names["03", "full"]
    assert "grpo-learned-reward" in names["02", "full"] and "grpo-learned-reward" not in names["02", "small"]
    assert "verl-tools" not in names["05", "full"]
    assert "verl-two-hosts" in names["05", "full"] and "verl-two-hosts" not in names["05", "megatron"]
    assert "dpo-lora" not in names["01", "full"]


def test_no_request_holds_a_path_of_this_machine(matrix):
    text = "".join(request_matrix.golden_text(recipes) for recipes in matrix.values())
    assert str(ROOT) not in text and str(Path.home()) + "/" not in text and "localhost" not in text
