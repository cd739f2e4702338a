"""All of a Ray cluster's processes that listen write their stacks when they are asked, and the others live on."""

import pytest
from harness import ROOT, answer_of

STACKS = """
import json, os, sys, time
import ray
from verl_stacks import ask_all, listen

ray.init(num_cpus=1, include_dashboard=False, logging_level="error")

@ray.remote(num_cpus=0)
class Worker:
    def start(self, listens):
        if listens:
            listen()
        return os.getpid()
    def sleeps_in_here(self): time.sleep(100)
    def alive(self): return True

ear, deaf = Worker.remote(), Worker.remote()
pids = ray.get([ear.start.remote(True), deaf.start.remote(False)])
ear.sleeps_in_here.remote()
time.sleep(0.5)
ask_all()
folder = os.path.join(ray._private.worker._global_node.get_logs_dir_path())
def written(pid):
    return "".join(open(os.path.join(folder, name)).read() for name in os.listdir(folder) if name.endswith(f"-{pid}.err"))
until = time.monotonic() + 20
while "sleeps_in_here" not in written(pids[0]) and time.monotonic() < until:
    time.sleep(0.2)
print("ANSWER " + json.dumps(["sleeps_in_here" in written(pids[0]), ray.get(deaf.alive.remote())]))
"""


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_who_listens_says_where_it_is_and_nobody_dies_of_it():
    assert answer_of(STACKS, scripts=ROOT / "05_grpo_verl" / "scripts") == [True, True]
