"""A function in several processes of this host that form a group (gloo). They are forks, so that what takes seconds to
import is imported once.

    sums = in_processes(2, add_up, tensor)      # what add_up(tensor) gave in process 0 and in process 1
"""

import contextlib
import multiprocessing
import os
import pickle
import signal
import socket
import time
import traceback
import warnings
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as dist

TIMEOUT_S = 300


def in_processes(count: int, function: Callable, *arguments: Any) -> list[Any]:
    """What the function gives in each process, by rank. All are ended on the way out.

    Raises:
        RuntimeError: it failed in one of them (the message has the traceback), or took longer than TIMEOUT_S.
    """
    context = multiprocessing.get_context("fork")
    answers: Any = context.SimpleQueue()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    processes = [
        context.Process(target=_run, args=(answers, rank, count, port, function, arguments))
        for rank in range(count)
    ]
    for process in processes:
        process.start()
    try:
        found = dict(_answer(answers, processes) for _ in processes)
    finally:
        for process in processes:
            # With what it started: Megatron saves with processes of its own.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.kill()  # if it had no group yet
            process.join()
    return [found[rank] for rank in range(count)]


def _answer(answers: Any, processes: list) -> tuple[int, Any]:
    deadline = time.monotonic() + TIMEOUT_S
    while answers.empty():
        if killed := [process.exitcode for process in processes if process.exitcode]:
            raise RuntimeError(f"a process ended with exit code {killed[0]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"no answer after {TIMEOUT_S} s")
        time.sleep(0.01)
    rank, failure, answer = pickle.loads(answers.get())
    if failure:
        raise RuntimeError(f"process {rank} of {len(processes)} failed:\n{failure}")
    return rank, answer


def _run(answers: Any, rank: int, count: int, port: int, function: Callable, arguments: tuple) -> None:
    os.setsid()
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(count), LOCAL_RANK=str(rank))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        dist.init_process_group("gloo")
        # Pickled here, since a queue would hand over tensors as shared memory that ends with this process.
        answers.put(pickle.dumps((rank, None, function(*arguments))))
        dist.barrier()  # nobody leaves while another still talks to it
    except BaseException:
        answers.put(pickle.dumps((rank, traceback.format_exc(), None)))
    os._exit(0)
