"""Tools with a state: an environment for each conversation, the same in verl's rollouts and in the evaluation."""

import pytest
from harness import ROOT, answer_of
from rl.environments import price

SCRIPTS = ROOT / "05_grpo_verl" / "scripts"


VERLS_TOOLS = """
import asyncio, json, types
from verl.tools.tool_registry import load_all_tools
from omegaconf import OmegaConf
from tool_use import Conversation
from verl_config import evaluation_tools

(tool,) = load_all_tools("environment_tools.yaml", None)
turns = {"enable": True, "tool_config_path": "environment_tools.yaml", "function_tool_path": None}
config = OmegaConf.create({"actor_rollout_ref": {"rollout": {"multi_turn": turns}}})
(ours,) = evaluation_tools(config)
questions = ["Till 17: what do 417, 902, 335 cost together?", "Till 19: what do 417, 902 cost together?"]

async def rollouts():
    # As verl's agent loop calls it: an instance made and released for each call, and the conversation handed over.
    data = [types.SimpleNamespace(messages=[{"role": "user", "content": question}]) for question in questions]
    shown = []
    for number, item in ((0, "417"), (1, "902"), (0, "902"), (1, "902"), (1, "417"), (0, "335")):
        instance, _ = await tool.create(create_kwargs={})
        response, reward, _ = await tool.execute(instance, {"item": item}, agent_data=data[number])
        await tool.release(instance)
        data[number].messages.append({"role": "tool", "content": response.text})
        shown.append([number, response.text])
    return shown

async def evaluation():
    conversations = [Conversation([{"role": "user", "content": question}]) for question in questions]
    return [[number, await ours.call(conversations[number], item=item)]
            for number, item in ((0, "417"), (1, "902"), (0, "902"), (1, "902"), (1, "417"), (0, "335"))]

print("ANSWER " + json.dumps([asyncio.run(rollouts()), asyncio.run(evaluation()), ours.schema, ours.remembers]))
"""


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_verls_rollouts_and_the_evaluation_keep_one_environment_for_each_conversation():
    rollouts, evaluation, schema, remembers = answer_of(
        VERLS_TOOLS,
        scripts=SCRIPTS,
        VERL_PLATFORM="cpu",
        VERL_USE_EXTERNAL_MODULES="verl_cpu",
        VERL_ENGINE_DEVICE="cuda",
    )
    one = [price(17, item) for item in ("417", "902", "335")]
    other = [price(19, item) for item in ("417", "902")]
    assert rollouts == evaluation == [
        [0, f"{one[0]}, left 902, 335"],
        [1, f"{other[1]}, left 417"],
        [0, f"{one[0] + one[1]}, left 335"],
        [1, "Error: 902 is not among them, left 417"],
        [1, f"{sum(other)}, left nothing"],
        [0, f"{sum(one)}, left nothing"],
    ]  # fmt: skip
    assert schema["function"]["name"] == "scan" and remembers
