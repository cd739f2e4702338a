"""A few of the bad inputs of scripts/bad_inputs, the whole of which scripts/try_bad_inputs.py tries."""

import dataclasses
import sys
import time
from pathlib import Path

import pytest
import try_bad_inputs
from bad_inputs.before import trainer_of, try_before
from bad_inputs.cases import BEFORE, COMPLETED, IN_JOB, PASSED, Tried
from bad_inputs.file_cases import file_cases
from bad_inputs.in_job import Server
from bad_inputs.places import Ground
from bad_inputs.settings_cases import settings_cases
from job.arguments import RecipeError
from job.recipe import read_recipe
from job_variables import job_variables
from local_sagemaker.environments import EnvironmentBuildError, requirement_lines
from rl.tasks import DataError, read_rows
from try_bad_inputs import faulty, page
from workshop.checks.alone import run_alone
from workshop.checks.preflight import preflight

CASES = {case.name: case for case in [*settings_cases(), *file_cases()]}
SOUND_JOB = next(case for case in settings_cases() if case.name == "02 recipe: nothing")
# What preflight says of them; each of these came to a traceback, to a wait without end or to a job before.
BEFORE_A_JOB = {
    "02 recipe: per_device_train_batch_size=0": "'per_device_train_batch_size' is 0: it must be 1 or more",
    "02 recipe: file: an alias within itself": "do its aliases",
    "02 recipe: file: 5,000 brackets": "is not valid YAML",
    "02 recipe: loss_type=dappo": "'loss_type' must be one of grpo,",
    "02 recipe: resume_from_checkpoint=no/such/folder": "would be passed over",
    "02 recipe: run_name=--help": "which a command line takes for a setting",
    "02 recipe: eval_strategy=steps": 'must be no, not "steps": the script gives its trainer no validation data',
    "02 recipe: save_strategy=best": "the best checkpoint is found by validation data",
    "02 recipe: load_best_model_at_end=true": 'must be false, not "true": the best checkpoint',
    "02 recipe: remove_unused_columns=true": "rewards read the columns of the data",
    "02 recipe: auto_find_batch_size=true": "would no longer hold whole groups",
    "02 recipe: record_steps=[99]": "names step 99, and training ends at max_steps",
    "01 recipe: sync_ref_model=true": "moves the reference",
    "02 source: a pipe for the accelerate file": "there is no accelerate/cpu.yaml in the source",
    "05 recipe: algoritm.gamma=1": "did you mean 'algorithm'?",
    "05 recipe: job.base_model=5": "job.base_model is 5: write a text",
    "05 recipe: file: aliases that grow (a billion laughs)": "do its aliases",
    "05 recipe: actor_rollout_ref.actor.loss_agg_mode=mean": "write one of token-mean",
    "02 data: the text nan as answers": "cannot be reached with the verifier 'number'",
    "02 data: one prompt longer than the model's context": "1 of 64 prompts have more than 1023 tokens",
    "02 data: a test of one index": "Two of 4 problems have the index 0",
    "02 reward: verifier: raises where the answer is no number": "must answer every text that a model may write",
    "02 data: a pipe for train.jsonl": "is no file that can be read",
    "02 reward: reward: an import that calls os._exit": "Python ended with 0",
    "02 reward: reward: returns numbers too large to compute with": "Scale it",
    "02 model: a pipe for weights": "is no file that can be read",
    "02 model: 10 GB of nothing for tokenizer.json": "10,737,418,240 bytes",
    "02 source: arguments.py that calls sys.exit": "arguments.py cannot be imported",
    "02 source: requirements that include themselves": "includes itself",
    "02 request: no instances": "instance_count is 0: it must be 1 or more",
    "02 request: -5 s at most": "max_runtime_in_seconds is -5",
    "02 request: a name with a space": "letters, digits and hyphens",
    "02 request: a name of 200 letters": "a second job would be refused for its name",
    "02 source: an accelerate file that is a list": "accelerate/cpu.yaml must hold lines of the form 'key: value'",
    "02 recipe: lr_scheduler_kwargs={": "'lr_scheduler_kwargs' must be dict, not",
    "02 reward: reward: a file that is no UTF-8": "bad_file.py is not UTF-8",
    '04 recipe: lora_target_modules=["no_such_proj"]': "unknown layer 'no_such_proj'",
    '03 recipe: fsdp_config={"version": 3}': "version must be one of 1, 2",
    "02 request: data at a path with a zero byte": "train: There is no file",
}


@pytest.fixture(scope="module")
def ground(tmp_path_factory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


@pytest.fixture(scope="module")
def imported(endpoint, ground) -> None:
    """A sound job passes; and the processes that are forked from this one have then imported what preflight needs."""
    sound = SOUND_JOB
    preflight(*trainer_of(sound, ground.place(sound)))


@pytest.mark.usefixtures("imported")
@pytest.mark.parametrize("name", BEFORE_A_JOB)
def test_refused_in_words_before_a_job(ground, name):
    case = CASES[name]
    tried = try_before(case, ground.place(case))
    assert tried and tried.outcome == BEFORE, tried
    assert BEFORE_A_JOB[name] in tried.words, tried.words


@pytest.mark.job
def test_a_job_refuses_too_and_one_that_trains_completes(ground, tmp_path):
    """What in_job.Server says is what the script does; `beta` is refused before, and by the job itself as well."""
    server = Server("02", Path(sys.executable), ground.source("02"), job_variables(HF_HUB_OFFLINE="1"))
    try:
        for name, code, words in (
            ("02 recipe: beta=-1", 1, "'beta' is -1"),
            ('02 recipe: lora_target_modules=["no_such_proj"]', 1, "no_such_proj"),
            ("02 recipe: epsilon_high=0.1", 0, ""),
        ):
            place = ground.place(CASES[name])
            folder = tmp_path / str(len(name))
            folder.mkdir()
            arguments = [f"--{key}={value}".replace("'", '"') for key, value in place.settings.items()]
            channels = {f"SM_CHANNEL_{key.upper()}": str(path) for key, path in place.channels.items()}
            ended = server.run(
                place.source, "train.py", ["--config", place.recipe, *arguments], folder, **channels
            )
            assert ended[0] == code and words in ended[1], ended
    finally:
        server.end()


def test_each_case_has_a_name_of_its_own():
    names = [(case.name, case.script) for case in [*settings_cases(), *file_cases()]]
    assert len(set(names)) == len(names) > 300
    assert {case.module for case in CASES.values()} == {"01", "02", "03", "04", "05"}
    assert all(dataclasses.is_dataclass(case) for case in CASES.values())


def test_the_page_says_what_is_open_and_what_is_right():
    sound, bad = SOUND_JOB, CASES["02 recipe: beta=-1"]
    ends = {BEFORE: "preflight: beta", IN_JOB: "RecipeError: beta"}
    right = [Tried(bad, outcome, words, 1.0) for outcome, words in ends.items()] + [
        Tried(sound, COMPLETED, "", 1.0)
    ]
    assert not any(map(faulty, right)) and "## Open" not in page(right)
    assert "| 02 | recipe | 3 | 1 | 1 | 1 |" in page(right)
    wrong = [
        Tried(bad, COMPLETED, "", 1.0),
        Tried(bad, "PREFLIGHT hung", "a | b", 1.0),
        Tried(sound, BEFORE, "why", 1.0),
    ]
    assert all(map(faulty, wrong))
    for row in (
        "| beta=-1 | completed. |",
        "| beta=-1 | PREFLIGHT hung. a \\| b |",
        "| nothing | refused before a job. why |",
    ):
        assert row in page(wrong).partition("## Open")[2].partition("\n## ")[0]


def test_what_was_tried_is_remembered_but_for_a_line_that_was_cut_off(tmp_path, monkeypatch, capsys):
    kept = tmp_path / "kept.jsonl"
    monkeypatch.setattr(try_bad_inputs, "RESULTS", kept)
    case, cases = (
        CASES["02 recipe: beta=-1"],
        {("02 recipe: beta=-1", "train.py"): CASES["02 recipe: beta=-1"]},
    )
    try_bad_inputs._keep(Tried(case, PASSED, "", 1.0))
    with kept.open("a") as file:
        file.write('["02 recipe: beta=-1", "train.py", "comp')
    (known,) = dict(try_bad_inputs._read(cases)).values()
    assert known.outcome == PASSED and "was cut off" in capsys.readouterr().out
    try_bad_inputs._keep(Tried(case, IN_JOB, "why", 1.0))
    (known,) = dict(try_bad_inputs._read(cases)).values()
    assert (known.outcome, known.words) == (IN_JOB, "why") and len(kept.read_text().splitlines()) == 2


@pytest.mark.parametrize("name", ["/dev/zero", "a" * 5000, "a\0b"], ids=["device", "long", "zero byte"])
def test_what_is_no_file_is_refused_by_each_reader(name):
    with pytest.raises(DataError):
        read_rows(name)
    with pytest.raises(RecipeError):
        read_recipe(name)
    with pytest.raises(EnvironmentBuildError):
        requirement_lines(Path(name))


def test_ten_gigabytes_are_refused_unread(tmp_path):
    for name in ("train.jsonl", "recipe.yaml"):
        with open(tmp_path / name, "wb") as file:
            file.truncate(10 * 2**30)
    with pytest.raises(DataError, match="more than 2 GB"):
        read_rows(tmp_path)
    with pytest.raises(RecipeError, match="10,737,418,240 bytes"):
        read_recipe(tmp_path / "recipe.yaml")


def test_code_that_is_run_alone_ends_with_what_it_started(tmp_path):
    code = "import subprocess; print(subprocess.Popen(['sleep', '600']).pid, flush=True)"
    done = run_alone(["-c", code], tmp_path, 30)
    deadline = time.monotonic() + 20
    while _runs(int(done.answer)):
        assert time.monotonic() < deadline, "what it started runs on"
        time.sleep(0.05)
    assert done.code == 0
    assert run_alone(["-c", "import time; time.sleep(600)"], tmp_path, 0.5).code is None


def _runs(pid: int) -> bool:
    """Whether a process is there and is no zombie that waits to be collected."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False
