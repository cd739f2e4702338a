"""Recorded runs: what experiments.yaml may say, and which jobs that makes."""

# ruff: noqa: F811  (fixtures are arguments)

import dataclasses
from pathlib import Path

import pytest
from recorded_module import (
    ARGUMENTS,
    EXPERIMENT,
    GRPO,
    ROOT,
    module,  # noqa: F401
    settings,
    write_experiments,
)
from seeds.experiments import ExperimentError, read_experiments
from seeds.jobs import write_data
from seeds.runs import Run, missing_runs, settings_of, wanted_runs
from verl_keys import key_problems
from verl_recipe import read_verl_recipe, recipe_problems
from workshop.session.machines import MachineError

VERL = ROOT / "05_grpo_verl"
MODULES = sorted(path.parents[1] for path in ROOT.glob("[0-9][0-9]_*/recorded/experiments.yaml"))


# ---- experiments.yaml ----


@pytest.mark.parametrize("module", MODULES, ids=lambda folder: folder.name)
def test_each_modules_experiments_fit_its_scripts(module):
    for experiment in read_experiments(module).values():
        variants = settings_of(module, experiment)
        assert variants.keys() == experiment.variants.keys()
        assert len(experiment.seeds) >= 3 and experiment.question.endswith("?")
        assert len({found.fingerprint for found in variants.values()}) == len(variants), "two are the same"


def test_the_notebooks_with_comparisons_have_experiments():
    assert [module.name[:2] for module in MODULES] == ["01", "02", "03", "04", "05"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"variant": {}}, "rates: unknown key 'variant'; did you mean 'variants'?"),
        ({"question": ""}, "question must be a text"),
        ({"seeds": []}, "seeds must be a list of whole numbers"),
        ({"seeds": [True]}, "seeds must be a list of whole numbers"),
        ({"data": {"task": "chian_sum", "splits": {"train": 1}, "seed": 1}}, "did you mean 'chain_sum'?"),
        ({"data": {"task": "chain_sum", "seed": 1}}, "splits must say how many problems each has"),
        ({"data": {"task": "chain_sum", "splits": {"train": 1}}}, "data: seed must be a whole number"),
        ({"data": {"function": "a.b", "task": "chain_sum", "seed": 1}}, "not both"),
        ({"data": {"function": "a", "seed": 1}}, "file.function"),
        ({"variants": {}}, "variants must be a mapping"),
        ({"variants": {0.1: {}}}, "put it in quotes"),
        ({"variants": {"a/b": {}}}, "without /"),
        ({"variants": {"a": None}}, "a: must be a mapping of hyperparameters"),
        ({"variants": {"a": {"script": 1}}}, "a: script must be a text"),
        ({"variants": {"a": {"channels": {"x": "slow"}}}}, "'slow' is none of 'split NAME'"),
        ({"variants": {"a": {"channels": {"x": "model of b"}}}}, "channel x: unknown variant 'b'"),
        ({"variants": {"a": {"channels": {"x": "split tset"}}}}, "did you mean 'test'?"),
        (
            {
                "variants": {
                    "a": {"channels": {"x": "model of c"}},
                    "b": {"channels": {"x": "model of a"}},
                    "c": {"channels": {"x": "output of b/f.txt"}},
                }
            },
            "wait for each other: a -> c -> b -> a",
        ),
        ({"variants": {"a": {"channels": {"x": "model of a"}}}}, "wait for each other: a -> a"),
    ],
)
def test_what_is_wrong_is_said(module, changes, message):
    write_experiments(module, rates=EXPERIMENT | changes)
    with pytest.raises(ExperimentError) as error:
        read_experiments(module)
    assert message in str(error.value) and "experiments.yaml" in str(error.value)


def test_all_that_is_wrong_is_said_at_once(module):
    write_experiments(module, rates=EXPERIMENT | {"seeds": 1}, Other={"script": "x"})
    with pytest.raises(ExperimentError) as error:
        read_experiments(module)
    for part in ("rates: seeds must be", "Other: an experiment's name", "Other: variants is missing"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"variants": {"a": {"rat": 1}}}, "rates, a: unknown hyperparameter 'rat'; did you mean 'rate'?"),
        ({"variants": {"a": {"rate": "x"}}}, "hyperparameter 'rate' must be float"),
        ({"script": "trian.py"}, "there is no trian.py"),
        ({"variants": {"a": {"recipe": "tny"}}}, "There is no recipe"),
    ],
)
def test_settings_that_there_are_not_are_refused(module, changes, message):
    with pytest.raises(ExperimentError, match=message):
        settings(module, **changes)


def test_a_recipe_without_a_machine_is_refused(module):
    with pytest.raises(MachineError, match="no row 'side'"):
        settings(module, recipe="side")


# ---- which jobs ----


def test_a_step_is_as_large_as_the_recipes(module):
    found = settings(
        module, variants={"a": {}, "b": {"per_device_train_batch_size": 5}, "c": {"recipe": "side"}}
    )
    sizes = {name: each.hyperparameters["per_device_train_batch_size"] for name, each in found.items()}
    assert sizes == {"a": 16, "b": 5, "c": 8}  # tiny is made for two processes; side is in no machines.yaml
    real = settings_of(GRPO, read_experiments(GRPO)["controls"])
    assert {each.hyperparameters["per_device_train_batch_size"] for each in real.values()} == {64}


def test_a_recipe_with_sections_is_changed_by_overrides():
    experiment = read_experiments(VERL)["losses"]
    found = settings_of(VERL, experiment)
    with_seed = found["CISPO"].with_seed(7)
    assert with_seed["config"] == "recipes/tiny.yaml"
    assert "actor_rollout_ref.actor.ppo_epochs=2" in with_seed["overrides"], "of all variants"
    assert 'actor_rollout_ref.actor.policy_loss.loss_mode="cispo"' in with_seed["overrides"]
    assert "data.seed=7" in with_seed["overrides"] and "job.report_to=[]" in with_seed["overrides"]
    job, verl = read_verl_recipe(VERL / "scripts" / with_seed["config"], with_seed["overrides"])
    assert not list(key_problems(verl)) and recipe_problems(job, verl, hosts=1, gpus_per_host=1) == []
    assert verl["data"]["seed"] == 7 and job.report_to == []


def test_what_says_nothing_of_a_result_is_no_setting_of_a_recipe_with_sections():
    experiment = read_experiments(VERL)["losses"]

    def fingerprint(**change: object) -> str:
        changed = dataclasses.replace(experiment.variants["GRPO"], hyperparameters=change)
        return settings_of(VERL, dataclasses.replace(experiment, variants={"a": changed}))["a"].fingerprint

    plain = fingerprint()
    for nothing in ({"data.seed": 9}, {"trainer.save_freq": 3}, {"job.report_to": ["mlflow"]}):
        assert fingerprint(**nothing) == plain
    for something in ({"actor_rollout_ref.rollout.n": 4}, {"job.eval_samples": 1}, {"algorithm.gamma": 0.9}):
        assert fingerprint(**something) != plain


def test_common_hyperparameters_are_those_of_the_experiments_script(module):
    found = settings(module, hyperparameters={"rate": 7}, variants={"a": {}, "b": {"script": "other.py"}})
    assert found["a"].hyperparameters["rate"] == 7 and "rate" not in found["b"].hyperparameters


def test_a_variants_own_recipe_is_the_one_for_the_device(module):
    files = {"on CPU": "use_cpu: true\n", "on GPU": "use_cpu: false\n"}
    scripts, arguments = module / "scripts", (module / "scripts" / "arguments.py")
    arguments.write_text(
        ARGUMENTS.replace("    seed:", '    use_cpu: bool = argument(False, "CPU.")\n    seed:')
    )
    recipe = (scripts / "recipes" / "tiny.yaml").read_text()
    used = {}
    for device, line in files.items():
        (scripts / "recipes" / "tiny.yaml").write_text(recipe + line)
        used[device] = settings(module, variants={"a": {"recipe": "side"}})["a"].hyperparameters["config"]
    assert used == {"on CPU": "recipes/side.yaml", "on GPU": "recipes/side_gpu.yaml"}


def test_a_fingerprint_tells_settings_apart_and_nothing_else(module):
    variants = {"a": {}, "b": {"channels": {"first": "model of a"}}, "same": {"save_steps": 9}}
    before = settings(module, variants=variants)
    assert before["a"].fingerprint == before["same"].fingerprint != before["b"].fingerprint
    assert settings(module, variants=variants, seeds=[9])["a"].fingerprint == before["a"].fingerprint
    changed = settings(module, variants=variants | {"a": {"rate": 0.2}})
    assert changed["a"].fingerprint != before["a"].fingerprint
    assert changed["b"].fingerprint != before["b"].fingerprint, "it starts from another model"
    data = EXPERIMENT["data"] | {"seed": 43}
    assert settings(module, variants=variants, data=data)["a"].fingerprint != before["a"].fingerprint


def test_a_change_of_ones_own_reward_is_a_change_of_settings(module):
    found = []
    for text in ("one", "two"):
        (module / "scripts" / "mine.py").write_text(f"# {text}\ndef points(): ...\n")
        found.append(settings(module, variants={"a": {"rewards": ["mine.points"]}, "b": {}}))
    assert found[0]["a"].fingerprint != found[1]["a"].fingerprint
    assert found[0]["b"].fingerprint == found[1]["b"].fingerprint


def test_the_same_settings_in_two_experiments_are_one_run():
    experiments = read_experiments(GRPO)
    chosen = [(experiments[name], settings_of(GRPO, experiments[name])) for name in ("controls", "rates")]
    runs = wanted_runs(chosen, [])
    (shared,) = (run for run in runs if run.seed == 1 and len(run.places) == 2)
    assert shared.places == (("controls", "accuracy and format"), ("rates", "1.5e-4"))
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert {run.seed for run in wanted_runs(chosen, [7, 8])} == {7, 8}


def chain(module: Path) -> list[Run]:
    """a, b from a, c from b, with one seed."""
    variants = {
        "c": {"rate": 3, "channels": {"x": "model of b"}},
        "a": {"rate": 1},
        "b": {"rate": 2, "channels": {"x": "model of a"}},
    }
    found = settings(module, variants=variants, seeds=[1])
    return wanted_runs([(read_experiments(module)["rates"], found)], [])


def names(runs: list[Run]) -> list[str]:
    return [run.places[0][1] for run in runs]


def test_a_run_comes_behind_those_that_it_starts_from(module):
    runs = chain(module)
    assert names(missing_runs(runs, lambda run: False, lambda run: False)) == ["a", "b", "c"]
    assert names(missing_runs(runs, lambda run: True, lambda run: False)) == []


def test_a_recorded_run_is_made_again_only_where_its_output_is_needed_and_gone(module):
    runs = chain(module)

    def is_recorded(run: Run) -> bool:
        return names([run]) != ["c"]

    assert names(missing_runs(runs, is_recorded, lambda run: False)) == ["a", "b", "c"]
    assert names(missing_runs(runs, is_recorded, lambda run: names([run]) == ["a"])) == ["b", "c"]
    assert names(missing_runs(runs, is_recorded, lambda run: True)) == ["c"]


def test_rows_may_come_from_a_function_of_ones_own(module):
    code = "def make(seed):\n    return {'train': [{'question': f'{seed} + 1', 'answer': '2'}]}\n"
    (module / "scripts" / "my_rows.py").write_text(code)
    found = settings(module, data={"function": "my_rows.make", "seed": 5}, variants={"a": {}})["a"]
    folders = write_data(module, found, module.parent / "build")
    assert '"5 + 1"' in (folders["train"] / "train.jsonl").read_text()
    found = settings(module, data={"function": "my_rows.mkae", "seed": 5}, variants={"a": {}})["a"]
    with pytest.raises(ExperimentError, match="there is no function mkae"):
        write_data(module, found, module.parent / "build")
