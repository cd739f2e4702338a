"""05_grpo_verl trains all the steps that it is asked for: verl ends after its epochs, if those are over earlier."""

import pytest
from harness import ROOT, answer_of

FILLED_IN = """
import json
from verl_config import fill_in, trainer_config
from verl_data import check_rows
from verl_recipe import read_verl_recipe
job, settings = read_verl_recipe("recipes/tiny.yaml", ["trainer.total_training_steps=31"])
config = trainer_config(job, settings, hosts=1, gpus_per_host=2)
rows = settings["data"]["train_batch_size"]
filled = fill_in(
    config, job, model="", data={}, epochs=check_rows(settings, rows), checkpoint=None, made_of={}, variables={}
)
print("ANSWER " + json.dumps([c.trainer.total_epochs for c in (config, filled)] + [filled.trainer.total_training_steps]))
"""
ON_CPU = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "verl_cpu", "HF_HUB_OFFLINE": "1"}


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_more_steps_than_verls_own_epochs_hold():
    """With rows for one step, an epoch is one step."""
    of_verl, filled_in, steps = answer_of(FILLED_IN, scripts=ROOT / "05_grpo_verl" / "scripts", **ON_CPU)
    assert of_verl < filled_in == steps == 31
