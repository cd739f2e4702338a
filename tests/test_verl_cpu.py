"""verl_cpu overrides nothing that verl does by itself: each test fails when verl no longer needs one of its parts.

The questions are asked in the job's environment, of verl as it is installed there, without the package loaded.
"""

import pytest
from harness import ROOT, answer_of
from verl_keys import ESTIMATORS

pytestmark = pytest.mark.job
MODULE = ROOT / "05_grpo_verl" / "scripts"
PLAIN = """
import inspect, json
from verl.plugin.platform import PlatformRegistry
from verl.trainer.ppo.v1 import trainer_base
from verl.trainer.ppo.v1.replay_buffer import ReplayBuffer
from verl.workers.engine import base
import verl.workers.engine
from verl.trainer.ppo.core_algos import AdvantageEstimator
from verl.workers.rollout.base import _ROLLOUT_REGISTRY
from verl.workers.rollout.replica import RolloutReplicaRegistry
engines = base.EngineRegistry._engines["language_model"]
print("ANSWER " + json.dumps({
    "platforms": sorted(PlatformRegistry.registered_names()),
    "rollouts": sorted(RolloutReplicaRegistry._registry),
    "actor_sides": sorted(name for name, mode in _ROLLOUT_REGISTRY),
    "fsdp2_devices": sorted(key if isinstance(key, str) else key[0] for key in engines["fsdp2"]),
    "estimators": sorted(estimator.value for estimator in AdvantageEstimator),
    "poll_s": inspect.signature(ReplayBuffer.__init__).parameters["poll_interval"].default,
    "poll_is_a_setting": "poll_interval" in inspect.getsource(trainer_base.PPOTrainer._build_replay_buffer),
    "logs_named_rewards": "reward_extra_info" in inspect.getsource(trainer_base.PPOTrainer._compute_metrics),
}))
"""
GLOO = """
import json, os, sys
os.environ.update(RANK="0", WORLD_SIZE="1", DIST_INIT_METHOD="file://" + sys.argv[1])
import verl_cpu
import verl.utils.distributed as distributed, torch
wrapped = distributed.initialize_global_process_group_ray
try:
    wrapped.__wrapped__()
    plain = "works"
except Exception as error:
    plain = str(error)
wrapped()
print("ANSWER " + json.dumps({"plain": plain, "ours": torch.distributed.get_backend()}))
"""


@pytest.fixture(scope="module")
def plain() -> dict:
    return answer_of(PLAIN, scripts=MODULE)


@pytest.mark.timeout(900)  # the environment may have to be built first
def test_verl_has_no_platform_and_no_rollout_for_a_cpu(plain):
    assert "cpu" not in plain["platforms"]
    assert "hf" not in plain["rollouts"] and "hf" not in plain["actor_sides"]


def test_the_fsdp_engine_is_not_registered_for_a_cpu(plain):
    """Else VERL_ENGINE_DEVICE=cuda would not be needed."""
    assert "cuda" in plain["fsdp2_devices"] and "cpu" not in plain["fsdp2_devices"]


def test_the_estimators_that_a_recipe_may_name_are_those_of_verl(plain):
    assert plain["estimators"] == sorted(ESTIMATORS)


def test_the_wait_between_looks_is_long_and_no_setting(plain):
    assert plain["poll_s"] == 2.0 and not plain["poll_is_a_setting"]


def test_rewards_are_not_logged_by_name_in_training(plain):
    assert not plain["logs_named_rewards"]


def test_without_the_override_torch_refuses_two_backends_for_the_cpu(tmp_path):
    answer = answer_of(
        GLOO,
        str(tmp_path / "meet"),
        scripts=MODULE,
        VERL_USE_EXTERNAL_MODULES="verl_cpu",
        VERL_PLATFORM="cpu",
        VERL_ENGINE_DEVICE="cuda",
    )
    assert "Duplicate device type cpu" in answer["plain"]
    assert answer["ours"] == "gloo"
