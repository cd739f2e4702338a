"""Tools with a state: an environment for each conversation, the same in verl's rollouts and in the evaluation."""

import pytest
from harness import ROOT, answer_of
from rl.environments import Till, price
from tools import find_calls
from verl_recipes import ON_CPU

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
        **ON_CPU,
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


EVALUATION = """
import json
from job.models import load_base
from rl.tasks import make_splits
from verl_config import evaluation_generate, evaluation_tools, trainer_config
from verl_recipe import read_verl_recipe

config = trainer_config(*read_verl_recipe("recipes/till.yaml", []), hosts=1, gpus_per_host=2)
generate = evaluation_generate(config, evaluation_tools(config))
rows = make_splits("till", {"test": 60})["test"]
done = generate(*load_base("asset:tiny-till"), [row["prompt"] for row in rows], max_new_tokens=48, temperature=1.0, seed=3)
print("ANSWER " + json.dumps([[row["question"], visit.text] for row, visit in zip(rows, done, strict=True)]))
"""


@pytest.mark.job
@pytest.mark.timeout(900)
def test_in_the_evaluation_each_conversation_has_a_till_of_its_own():
    visits = answer_of(EVALUATION, scripts=SCRIPTS, **ON_CPU, VERL_ENGINE_DEVICE="cuda")
    scans = 0
    for question, text in visits:
        till = Till()
        till.reset(question)
        shown = [after.partition("\nassistant\n")[0] for after in text.split("\ntool\n")[1:]]
        calls = find_calls(text)[: len(shown)]  # one in the last turn would not be carried out
        assert shown == [till.scan(**call["arguments"]) for call in calls], (question, text)
        scans += len(shown)
    assert scans > 60


OWN_ENVIRONMENTS = """
import asyncio, time

class Shop:
    async def reset(self, question):
        self.asked = [question]

    async def ask(self, item: str) -> str:
        \"\"\"Asks.

        Args:
            item: anything
        \"\"\"
        self.asked.append(item)
        if item == "all":
            await asyncio.sleep(3600)
        return ", ".join(self.asked)

    def stand(self, item: str) -> str:
        \"\"\"Does not move.

        Args:
            item: anything
        \"\"\"
        time.sleep(3600 if item == "all" else 0.2)
        self.asked.append(item)
        return ", ".join(self.asked)

class Greedy(Shop):
    def reset(self, question, price):
        pass
"""
CALLS = """
import asyncio, json, time, types
import environment_tools
from environment_tools import EnvironmentTool

environment_tools.SECONDS = 0.5
guarded = environment_tools.guarded
environment_tools.guarded = lambda: guarded(0.5)

async def called(method, *items):
    tool = EnvironmentTool({"environment": "own_shop.Shop", "method": method})
    data = types.SimpleNamespace(messages=[{"role": "user", "content": "which?"}])
    return [answer[0].text for answer in await asyncio.gather(
        *(tool.execute("", {"item": item} if item else {}, agent_data=data) for item in items))]

async def ticks(seconds):
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        await asyncio.sleep(0.05)
        count += 1
    return count

async def main():
    answers = await asyncio.gather(called("ask", "all", "a", "b", ""), called("stand", "all"), called("stand", "c", "d"), ticks(1))
    try:
        EnvironmentTool({"environment": "own_shop.Greedy", "method": "ask"})
    except TypeError as error:
        answers.append(str(error))
    return answers

print("ANSWER " + json.dumps(asyncio.run(main())))
"""


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_method_that_is_slow_hangs_or_is_async_holds_up_no_other_conversation(tmp_path):
    (tmp_path / "own_shop.py").write_text(OWN_ENVIRONMENTS)
    path = ":".join(map(str, (tmp_path, SCRIPTS, ROOT / "scripts")))
    asked, stuck, slow, ticks, refusal = answer_of(CALLS, scripts=SCRIPTS, PYTHONPATH=path, **ON_CPU)
    late = "Error: {} took longer than 0.5 seconds"
    missing = "Error: missing a required argument: 'item'"
    assert asked == [late.format("ask"), "which?, all, a", "which?, all, a, b", missing]
    assert stuck == [late.format("stand")]
    assert slow == ["which?, c", "which?, c, d"], "calls of one conversation come one after the other"
    assert ticks > 10, "the event loop went on meanwhile"
    assert "own_shop.Greedy.reset" in refusal and "reset(question=...)" in refusal
