"""The rollout server for CPUs: completions asked for one by one, of prompts of several lengths, are generated together."""

import pytest
from harness import ROOT, answer_of

pytestmark = [pytest.mark.job, pytest.mark.timeout(900)]  # the environment may have to be built first
MODULE = ROOT / "05_grpo_verl" / "scripts"
ASK = """
import asyncio, json, sys, types
import verl_cpu
from verl_cpu.rollout import Server

config = types.SimpleNamespace(seed=1, prompt_length=96, response_length=96)
server = Server(config, sys.argv[1], 0)
batches, generate = [], server._model.generate
def counted(**given):
    batches.append(len(given["input_ids"]))
    return generate(**given)
server._model.generate = counted
sums = ["1 + 2 =", "13 + 4 - 2 =", "5 + 6 - 7 + 8 =", "9 - 1 =", "2 + 3 + 4 + 5 ="]
prompts = [server._tokenizer(text)["input_ids"] for text in sums]

async def ask(number, **asked):
    await asyncio.sleep(0.02 * number)  # one after the other, as verl's agent loops do
    return await server.generate(prompts[number], asked, request_id=str(number))

async def ask_all(*asked):
    return [output.token_ids for output in await asyncio.gather(*(ask(n, **each) for n, each in enumerate(asked)))]

async def main():
    greedy = [{"temperature": 0.0}] * 5
    seen = {"lengths": [len(prompt) for prompt in prompts], "together": await ask_all(*greedy)}
    seen["batches together"] = batches[:]
    seen["alone"] = [(await ask(n, temperature=0.0)).token_ids for n in range(5)]
    batches.clear()
    seen["limited"] = await ask_all(*({"temperature": 0.0, "max_tokens": limit} for limit in [3, 40, 4, 1, 2]))
    seen["batches limited"] = batches[:]
    batches.clear()
    await ask_all(*({"temperature": temperature} for temperature in (1.0, 0.5, 1.0, 0.5, 1.0)))
    seen["batches otherwise"] = sorted(batches)
    seen["limits"] = [server._limit(([5] * length, {}, None)) for length in (10, 96, 150)]
    return seen

print("ANSWER " + json.dumps(asyncio.run(main())))
"""


@pytest.fixture(scope="module")
def answer() -> dict:
    variables = {
        "VERL_USE_EXTERNAL_MODULES": "verl_cpu",
        "VERL_PLATFORM": "cpu",
        "VERL_ENGINE_DEVICE": "cuda",
    }
    return answer_of(ASK, str(ROOT / "scripts" / "assets" / "tiny"), scripts=MODULE, **variables)


def test_requests_that_follow_one_another_are_one_batch_unless_they_are_sampled_otherwise(answer):
    assert len(set(answer["lengths"])) > 2
    assert answer["batches together"] == answer["batches limited"] == [5]
    assert answer["batches otherwise"] == [2, 3]


def test_a_completion_is_what_it_is_alone(answer):
    assert answer["together"] == answer["alone"]


def test_each_is_cut_off_at_its_own_limit(answer):
    limits = [3, 40, 4, 1, 2]
    assert answer["limited"] == [
        tokens[:limit] for tokens, limit in zip(answer["alone"], limits, strict=True)
    ]


def test_none_is_longer_than_a_response_may_be_nor_than_what_a_conversation_has_left(answer):
    assert answer["limits"] == [96, 96, 42]
