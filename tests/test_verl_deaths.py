"""Which of Ray's dead actors were not meant to die, by Ray's own table: killed, out of memory, let go, ended by name."""

import pytest
from harness import ROOT, answer_of

DEATHS = """
import json, os, signal, sys, time
import ray
from verl_deaths import lost_process

options = {"memory_usage_threshold": 0.005, "memory_monitor_refresh_ms": 250} if sys.argv[1] == "memory" else {}
ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="error", _system_config=options)

@ray.remote(num_cpus=0)
class Worker:
    def pid(self): return os.getpid()
    def work(self): time.sleep(100)

worker, other = Worker.options(name="the one").remote(), Worker.remote()
if sys.argv[1] == "killed":
    os.kill(ray.get(worker.pid.remote()), signal.SIGKILL)
elif sys.argv[1] == "meant":
    ray.get(other.pid.remote())
    ray.kill(worker)
    del other
elif sys.argv[1] == "memory":
    try:
        ray.get([worker.work.remote(), other.work.remote()], timeout=30)
    except ray.exceptions.OutOfMemoryError:
        pass
found, until = None, time.monotonic() + (4 if sys.argv[1] == "meant" else 30)
while found is None and time.monotonic() < until:
    time.sleep(0.2)
    found = lost_process(ray._private.state.actors())
states = [actor["State"] for actor in ray._private.state.actors().values()]
print("ANSWER " + json.dumps([found, states]))
"""
WORDS = {
    "killed": ("the one (process ", "died without a word"),
    "memory": ("Ray ended ", "because the machine ran out of memory: ", "GB used / "),
    "meant": None,
}


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
@pytest.mark.parametrize("how", WORDS)
def test_which_deaths_end_a_job(how):
    found, states = answer_of(DEATHS, how, scripts=ROOT / "05_grpo_verl" / "scripts")
    assert "DEAD" in states
    assert found is None if WORDS[how] is None else all(words in found for words in WORDS[how]), found
