"""What processes say to each other in a pass, and when each is at work: counted at torch.distributed and at Megatron's
schedule, which both go on as they are."""

import functools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch.distributed as dist
from torch.utils._pytree import tree_leaves

# Calls of a process group, by the names that torch.distributed's functions have, and where among the arguments stands what
# a process hands over: a tensor or a list of tensors.
CALLS = {
    "allreduce": ("all-reduce", 1),
    "alltoall": ("all-to-all", 2),
    "all_to_all_single": ("all-to-all", 2),
    "allgather": ("all-gather", 2),
    "all_gather_single": ("all-gather", 2),
    "reduce_scatter_single": ("reduce-scatter", 2),
    "broadcast": ("broadcast", 1),
    "send": ("send", 1),
}
# What goes into these has a part for each process, and its own stays with it. What goes into the others is for all.
IN_PARTS = ("all-to-all", "reduce-scatter")


@dataclass(frozen=True)
class Sent:
    """One call of a process."""

    call: str  # all-reduce, all-to-all, send, ...
    megabytes: float  # of what others get, counted once however many they are


@dataclass(frozen=True)
class Interval:
    """A micro batch's forward or backward pass in one process, in seconds of time.perf_counter."""

    phase: str  # forward | backward
    start: float
    end: float


@contextmanager
def recorded_traffic() -> Iterator[list[Sent]]:
    """Fills the list with each call by which this process hands something to others."""
    sent: list[Sent] = []
    # As the class holds them: what getattr gives would no longer be a method when it is put back.
    originals = {method: vars(dist.ProcessGroup)[method] for method in CALLS}
    for method, (name, position) in CALLS.items():
        counted = _counted(name, position, getattr(dist.ProcessGroup, method), sent)
        setattr(dist.ProcessGroup, method, counted)
    try:
        yield sent
    finally:
        for method, original in originals.items():
            setattr(dist.ProcessGroup, method, original)


def _counted(name: str, position: int, original: Callable, sent: list[Sent]) -> Callable:
    def call(*args: Any, **kwargs: Any) -> Any:
        processes = args[0].size()
        tensors = tree_leaves(args[position]) if processes > 1 else []  # nobody else, nothing said
        if tensors:
            share = 1 - 1 / processes if name in IN_PARTS else 1
            sent.append(Sent(name, share * sum(tensor.nbytes for tensor in tensors) / 1e6))
        return original(*args, **kwargs)

    return call


@contextmanager
def recorded_stages() -> Iterator[list[Interval]]:
    """Fills the list with the forward and backward passes that Megatron's schedule makes; without Megatron with none."""
    intervals: list[Interval] = []
    try:
        from megatron.core.pipeline_parallel import schedules
    except ImportError:
        yield intervals
        return
    originals = {f"{phase}_step": phase for phase in ("forward", "backward")}
    kept = {name: getattr(schedules, name) for name in originals}
    for name, phase in originals.items():
        setattr(schedules, name, _timed(phase, kept[name], intervals))
    try:
        yield intervals
    finally:
        for name, original in kept.items():
            setattr(schedules, name, original)


def _timed(phase: str, original: Callable, intervals: list[Interval]) -> Callable:
    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        result = original(*args, **kwargs)
        intervals.append(Interval(phase, start, time.perf_counter()))
        return result

    return call
