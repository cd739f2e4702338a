"""Rewards and verifier are tried on the first rows in the staged source: what the job will find is what preflight says."""

import sys
import textwrap

import pytest
from job_requests import job_request
from rl.rewards import REWARDS, reward
from rl.tasks import make_splits
from workshop.checks.request import read_script
from workshop.checks.reward_checks import check_rewards
from workshop.session.staging import stage_source

OWN = {
    "length_of": "def score(completions, hint, **kwargs):\n    return [float(len(h)) for h in hint]\n",
    "as_trl": "def first(completions, **kwargs):\n    return [float(len(c[0]['content'])) for c in completions]\n",
    "later": "async def score(completions, **kwargs):\n    return [0.5] * len(completions)\n",
    "unsure": "def score(completions, **kwargs):\n    return [None] * len(completions)\n",
    "short": "def score(completions, **kwargs):\n    return [1.0]\n",
    "heavy": "import torch\n\ndef score(completions, **kwargs):\n    return [1.0] * len(completions)\n",
    "slip": "def score(completions, **kwargs)\n    return []\n",
}


@pytest.fixture
def scripts(tmp_path):
    """A module's scripts with files of one's own."""
    folder = tmp_path / "mine" / "scripts"
    folder.mkdir(parents=True)
    (folder / "train.py").write_text("")
    for name, text in OWN.items():
        (folder / f"{name}.py").write_text(text)
    return folder


@pytest.fixture
def findings(scripts, tmp_path):
    """findings(rewards, verifier=..., ...) -> {name: (status, detail)}, as preflight would show them."""
    rows = make_splits("chain_sum", {"train": 5})["train"]
    rows = [{**row, "hint": "abc"} for row in rows]

    def find(rewards, *, script=None, more=(), environment=None, hyperparameters=None, **settings):
        from rl.tasks import write_splits

        channels = [("train", str(write_splits({"train": rows}, tmp_path / "data")["train"])), *more]
        request = job_request(
            source_dir=stage_source(scripts, build=tmp_path),
            channels=channels,
            script=script,
            environment=environment or {},
            hyperparameters=hyperparameters or {},
        )
        checks = check_rewards(request, {"rewards": rewards, **settings})
        return {check.name: (check.status, check.detail) for check in checks}

    return find


def test_rewards_score_the_first_rows_with_their_columns(findings):
    found = findings(["accuracy", "length_of.score", "as_trl.first", "later.score", "unsure.score"])
    assert found["reward accuracy"] == ("ok", "1 for the known answer, 0 for an empty one (mean of 5 rows)")
    assert found["reward length_of.score"][1].startswith("3 for the known answer, 3 for an empty one")
    assert found["reward as_trl.first"][1].endswith("0 for an empty one (mean of 5 rows)")
    assert found["reward later.score"][1].startswith("0.5 for")
    assert found["reward unsure.score"][1].startswith("no opinion for")
    # Alike for the known answer and for nothing: said, since it may be a slip.
    assert {name for name, (status, _) in found.items() if status == "note"} == {
        f"reward {name}" for name in ("length_of.score", "later.score", "unsure.score")
    }
    assert {status for status, _ in found.values()} == {"ok", "note"}


@pytest.mark.parametrize("settings", [{}, {"max_completion_length": 96}], ids=["trl", "verl"])
def test_async_rewards_may_keep_what_belongs_to_an_event_loop(findings, scripts, settings):
    """TRL has one loop for all calls, and so has the trial: a semaphore is bound to the first that it waits in."""
    (scripts / "judge.py").write_text(
        "import asyncio\n\nAT_ONCE = asyncio.Semaphore(1)\n\n"
        "async def judged(completion):\n"
        "    async with AT_ONCE:\n"
        "        await asyncio.sleep(0)\n"
        "        return float(len(completion[0]['content']) > 0)\n\n"
        "async def score(completions, **kwargs):\n"
        "    return await asyncio.gather(*map(judged, completions))\n"
    )
    found = findings(["judge.score"], **settings)["reward judge.score"]
    assert found == ("ok", "1 for the known answer, 0 for an empty one (mean of 5 rows)")


def test_verl_calls_them_with_the_same_result(findings):
    found = findings(["length_of.score", "later.score", "unsure.score"], max_completion_length=96)
    assert [detail.split(" ")[0] for _, detail in found.values()] == ["3", "0.5", "no"]


def test_verl_is_no_place_for_a_reward_that_compares_completions(findings, scripts):
    """verl calls a reward with one completion: the best of each prompt's is then every one."""
    (scripts / "best.py").write_text(
        "def shortest(prompts, completions, **kwargs):\n"
        "    groups, texts = {}, [completion[0]['content'] for completion in completions]\n"
        "    for prompt, text in zip(prompts, texts):\n"
        "        groups.setdefault(str(prompt), []).append(len(text))\n"
        "    return [float(len(text) == min(groups[str(p)])) for p, text in zip(prompts, texts)]\n\n"
        "def one(completions, **kwargs):\n"
        "    assert len(completions) == 1\n"
        "    return [1.0]\n"
    )
    names = ["accuracy", "best.shortest", "best.one", "length_of.score", "unsure.score"]
    found = findings(names, max_completion_length=96)
    status, detail = found.pop("reward best.shortest")
    assert (
        status == "warning" and "called with 10 completions at once it scores 5 of them otherwise" in detail
    )
    assert {status for status, _ in found.values()} == {"ok", "note"}
    assert findings(["best.shortest"])["reward best.shortest"][0] == "note"


@pytest.mark.parametrize(
    ("name", "status", "message"),
    [
        ("no_such_file.score", "problem", "there is no file no_such_file.py beside the training script"),
        ("length_of.scor", "problem", "did you mean 'score'?"),
        ("short.score", "problem", "must return a list of 5 numbers, but returned 1 values"),
        ("slip.score", "problem", "slip.py cannot be imported: SyntaxError"),
        ("brevity", "problem", "unknown reward 'brevity'"),
    ],
)
def test_what_the_job_would_stumble_over_is_a_problem(findings, name, status, message):
    (found,) = findings([name]).values()
    assert found[0] == status and message in found[1]


def test_a_missing_column_is_named_with_those_there_are(findings, scripts):
    (scripts / "length_of.py").write_text(OWN["length_of"].replace("hint", "clue"))
    (found,) = findings(["length_of.score"]).values()
    assert found[0] == "problem" and "'clue'" in found[1] and "columns answer, hint, index" in found[1]


LAZY = "def score(completions, **kwargs):\n    import only_in_the_job\n    return [1.0] * len(completions)\n"


@pytest.mark.parametrize(
    ("text", "otherwise"),
    [
        (OWN["heavy"].replace("torch", "only_in_the_job"), ("warning", "requirements name no such package")),
        (LAZY, ("problem", "No module named 'only_in_the_job'")),
    ],
    ids=["when the file is imported", "when the reward is called"],
)
def test_a_package_that_only_the_job_has_is_no_problem(findings, scripts, text, otherwise):
    (scripts / "heavy.py").write_text(text)
    (scripts / "more.txt").write_text("Only.In_the-job==1.0  # a comment\n")
    (scripts / "requirements.txt").write_text("-r more.txt\n")
    (found,) = findings(["heavy.score"]).values()
    assert found[0] == "note" and found[1].startswith("not tried here") and "only_in_the_job" in found[1]
    (scripts / "requirements.txt").write_text("another==1.0\n")
    (scripts / "requirements-other.txt").write_text("only-in-the-job\n")  # not the job's
    (found,) = findings(["heavy.score"]).values()
    assert found[0] == otherwise[0] and otherwise[1] in found[1]


def test_a_verdict_that_needs_a_package_of_the_job_is_untried(findings, scripts):
    (scripts / "requirements.txt").write_text("only-in-the-job==1.0\n")
    (scripts / "mine.py").write_text("def same(given, gold):\n    import only_in_the_job\n")
    found = findings(["accuracy"], verifier="mine.same")
    assert [status for status, _ in found.values()] == ["note", "note"]


READS = {
    "a file": "open(channel('table') / 'table.csv').read()",
    "a search": "next(Path(os.environ['SM_CHANNEL_TABLE']).glob('*.csv')).read_text()",
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("late", [False, True], ids=["when imported", "when called"])
def test_own_code_reads_a_channel_of_its_own(findings, scripts, tmp_path, monkeypatch, read, late):
    body = f"    return [float({read if late else 'TABLE'})] * len(completions)\n"
    (scripts / "table.py").write_text(
        "import os\nfrom pathlib import Path\nfrom job.container import channel\n"
        f"TABLE = {0 if late else read}\n\ndef score(completions, **kwargs):\n{body}"
    )
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "table.csv").write_text("0.75")
    monkeypatch.chdir(tmp_path)
    for address in ("tables", f"file://{tmp_path}/tables", "tables/table.csv"):  # in the job always a folder
        ((status, said),) = findings(["table.score"], more=[("table", address)]).values()
        assert (status, said[:8]) == ("note", "0.75 for"), address
    ((status, said),) = findings(["table.score"], more=[("table", "s3://lake/tables/")]).values()
    assert status == "warning" and "cannot be tried here: it reads the channel 'table'" in said
    assert "at s3://lake/tables/" in said
    ((status, said),) = findings(["table.score"]).values()
    assert status == "problem" and "TABLE" in said.upper()


def test_data_in_s3_excuses_no_other_error(findings, scripts):
    found = findings(["short.score"], more=[("table", "s3://lake/tables/")])
    assert found["reward short.score"][0] == "problem"


def test_own_code_finds_the_job_s_environment(findings, scripts):
    (scripts / "judge.py").write_text(
        "import os\n\ndef score(completions, **kwargs):\n    return [float(os.environ['PENALTY'])] * len(completions)\n"
    )
    (found,) = findings(["judge.score"], environment={"PENALTY": "0.25"}).values()
    assert found[0] == "note" and found[1].startswith("0.25 for")


def test_own_code_finds_the_job_s_hyperparameters(findings, scripts):
    (scripts / "judge.py").write_text(
        "import json, os\n\ndef score(completions, **kwargs):\n"
        "    given = json.loads(os.environ['SM_HPS'])\n"
        "    assert given == {'config': 'recipes/tiny.yaml', 'penalty-a': 0.25, 'rewards': ['judge.score']}, given\n"
        "    assert os.environ['SM_HP_CONFIG'] == 'recipes/tiny.yaml', os.environ['SM_HP_CONFIG']\n"
        "    assert json.loads(os.environ['SM_HP_REWARDS']) == ['judge.score']\n"
        "    return [float(os.environ['SM_HP_PENALTY_A'])] * len(completions)\n"
    )
    given = {"config": "recipes/tiny.yaml", "penalty-a": 0.25, "rewards": ["judge.score"]}
    (found,) = findings(["accuracy"], hyperparameters={"a=b": 1, "nothing": "\0"}).values()
    assert found[0] == "ok", "another check refuses what can be no variable"
    (found,) = findings(["judge.score"], hyperparameters=given).values()
    assert found[0] == "note" and found[1].startswith("0.25 for"), found


def test_what_a_reward_prints_is_no_finding_and_one_that_exits_is_a_problem(findings, scripts):
    (scripts / "loud.py").write_text(
        "import sys\n\ndef score(completions, **kwargs):\n    print('scoring', end=' ')\n    return [1.0] * len(completions)\n"
        "\ndef leaves(completions, **kwargs):\n    sys.exit(3)\n"
    )
    found = findings(["loud.score", "loud.leaves"])
    assert found["reward loud.score"][0] == "note"
    assert found["reward loud.leaves"][0] == "problem" and "SystemExit: 3" in found["reward loud.leaves"][1]


def test_accuracy_must_earn_1_for_the_known_answer(findings, scripts):
    (scripts / "mine.py").write_text("def never(given, gold):\n    return False\n")
    status, detail = findings(["accuracy"], verifier="mine.never")["reward accuracy"]
    assert status == "warning" and "must earn 1 everywhere" in detail


def test_a_limit_that_is_no_number_is_for_another_check_to_say(findings):
    assert findings(["accuracy"], max_completion_length="many")["reward accuracy"][0] == "ok"


def test_what_the_job_binds_is_bound(findings, scripts):
    (scripts / "bound.py").write_text(
        "def score(completions, verifier, opening, max_completion_length, seed, **kwargs):\n"
        "    return [float(seed)] * len(completions)\n"
    )
    found = [findings(["bound.score"], **settings) for settings in ({}, {"seed": 7})]
    assert [detail.split(" ")[0] for ((_, detail),) in map(dict.values, found)] == ["42", "7"]
    # verl's trainer has no seed for rewards.
    ((status, detail),) = findings(["bound.score"], max_completion_length=96).values()
    assert status == "problem" and "'seed'" in detail


def test_a_reward_that_only_the_kernel_knows_is_refused(findings):
    @reward("of the kernel")
    def only_here(completions, answer, **kwargs):
        return [1.0] * len(completions)

    try:
        (found,) = findings(["of the kernel"]).values()
    finally:
        del REWARDS["of the kernel"]
    assert found[0] == "problem" and "unknown reward 'of the kernel'" in found[1]


def test_the_file_as_staged_counts_and_not_one_that_was_imported_before(findings, scripts):
    assert findings(["later.score"])["reward later.score"][1].startswith("0.5")
    (scripts / "later.py").write_text(OWN["later"].replace("0.5", "0.25"))
    assert findings(["later.score"])["reward later.score"][1].startswith("0.25")


def test_own_verifiers_are_tried_on_the_known_answers(findings, scripts):
    (scripts / "mine.py").write_text(
        textwrap.dedent(
            """
            def same(given, gold):
                return given == gold
            def never(given, gold):
                return False
            def odd(given, gold):
                return "yes"
            """
        )
    )
    assert findings([], verifier="mine.same")["verifier"][0] == "ok"
    assert "does not take 5 of 5 known answers" in findings([], verifier="mine.never")["verifier"][1]
    status, detail = findings([], verifier="mine.odd")["verifier"]
    assert status == "problem" and "returned 'yes'" in detail
    assert "unknown verifier 'numbr'; did you mean 'number'?" in findings([], verifier="numbr")["verifier"][1]


@pytest.mark.parametrize(
    ("verdict", "text"),
    [
        ("abs(float(given) - float(gold)) < 1e-6", "''"),
        ("given != '' and float(given) == float(gold)", "'about 3'"),
        (
            "given == gold or eval(given, {}, {'about': 3}) == gold if '/' in given else given == gold",
            "'1/0'",
        ),
        ("bool(given.encode('ascii')) and given == gold", "'é'"),
        ("given == gold or (given.isdigit() and int(given) == int(gold))", "'²'"),
        ("given == gold or re.fullmatch(given, gold)", "''"),
        ("given == gold or bool(re.fullmatch(given, gold))", "'[('"),
    ],
)
def test_own_verifiers_must_answer_whatever_a_model_may_write(findings, scripts, verdict, text):
    """In a job the verdict would raise on the first such completion, and 05 would lose it."""
    (scripts / "mine.py").write_text(f"import re\n\ndef close(given, gold):\n    return {verdict}\n")
    status, detail = findings(["accuracy"], verifier="mine.close")["verifier"]
    assert status == "problem" and f"{text} and " in detail
    assert "must answer every text that a model may write: return False" in detail


def test_own_verifiers_that_call_the_built_in_ones_are_sound(findings, scripts):
    (scripts / "mine.py").write_text(
        "from rl.verifiers import VERIFIERS\n\n"
        "def any_of_them(given, gold):\n    return any([verdict(given, gold) for verdict in VERIFIERS.values()])\n"
    )
    assert findings(["accuracy"], verifier="mine.any_of_them")["verifier"][0] == "ok"


def test_one_weight_for_each_reward(findings):
    found = findings(["accuracy", "format"], reward_weights=[1.0])
    assert found["rewards"] == ("problem", "reward_weights has 1 numbers for 2 rewards")


def test_reading_a_script_leaves_no_module_of_the_staged_source_behind(tmp_path):
    for number in (1, 2):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "beside.py").write_text(f"VALUE = {number}\n")
        (folder / "arguments.py").write_text("import beside\n\nSCRIPTS = {'train.py': beside.VALUE}\n")
        assert read_script(folder, "train.py") == number
    assert "beside" not in sys.modules


def test_what_does_not_come_back_is_named_and_said_while_it_is_waited_for(
    findings, scripts, monkeypatch, capsys
):
    (scripts / "slow.py").write_text(
        "import time\n\ndef score(completions, **kwargs):\n    time.sleep(600)\n"
    )
    monkeypatch.setattr("workshop.checks.reward_checks.SECONDS", 6.0)
    monkeypatch.setattr("workshop.checks.alone.PATIENCE", 0.2)
    found = findings(["as_trl.first", "slow.score"])
    assert found["reward as_trl.first"][0] in ("ok", "note")
    assert found["reward slow.score"][0] == "problem" and "in 6 s" in found["reward slow.score"][1]
    assert "is trying as_trl.first, slow.score, verifier number on 5 rows, for 6 s" in capsys.readouterr().out
