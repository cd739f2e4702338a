"""Rewards of one's own as people write them, and the fixture that writes them beside the training script."""

import sys

import pytest

MINE = """
import asyncio
import functools
import threading

seen = []

def brevity(completions, **kwargs):
    seen.append({"completions": completions, **kwargs})
    return [-float(len(completion[0]["content"])) for completion in completions]

def prompts_first(prompts, completions, completion_ids, topic, **kwargs):
    return [len(p[0]["content"]) + 10 * len(i) + 100 * (t == "a") for p, i, t in zip(prompts, completion_ids, topic)]

def keywords_only(*, completions, **kwargs):
    return [1.0] * len(completions)

def topic(completions, topic, level=1, **kwargs):
    return [float(t in c[0]["content"]) * level for c, t in zip(completions, topic)]

def without_kwargs(completions):
    return [1.0] * len(completions)

async def later(completions, answer, **kwargs):
    await asyncio.sleep(0)
    return [float(c[0]["content"] == a) for c, a in zip(completions, answer)]

async def bound_later(completions, verifier, **kwargs):
    return [float(verifier(c[0]["content"], "9.0")) for c in completions]

def no_opinion(completions, **kwargs):
    return [None if c[0]["content"] == "?" else 2.0 for c in completions]

class Weighted:
    def __init__(self, weight): self.weight = weight
    def __call__(self, completions, **kwargs): return [self.weight] * len(completions)

class Later(Weighted):
    async def __call__(self, completions, **kwargs): return [self.weight] * len(completions)

weighted, weighted_later = Weighted(0.5), Later(0.25)
partly = functools.partial(topic, level=3)
"""

DECORATED = """
from rl.rewards import reward

@reward("words")
def words(completions, answer, topic=("",), **kwargs):
    return [float(len(text.split())) for text in completions]

@reward("verdicts")
async def verdicts(completions, answer, verifier, **kwargs):
    return [float(verifier(text, gold)) for text, gold in zip(completions, answer)]
"""


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file beside the training script, as a notebook's cell does; it is forgotten afterwards."""
    from rl.rewards import REWARDS

    monkeypatch.syspath_prepend(tmp_path)
    registered = dict(REWARDS)
    packages: set[str] = set()

    def file(name, content):
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
        packages.add(name.partition(".")[0])  # without __init__.py they have no file
        return path

    yield file
    for name, module in list(sys.modules.items()):
        if name in packages or (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    REWARDS.clear()
    REWARDS.update(registered)
