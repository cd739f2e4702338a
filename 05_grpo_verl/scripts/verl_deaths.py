"""Ends the job when one of verl's processes is lost. verl waits for its completions for ever, and says so once a minute.

Ray knows which of its actors died, and of what: killed by its memory monitor (`oom_context`), or without a word, by the
system's out-of-memory killer or a crash in compiled code (`WORKER_DIED`). Those that verl itself ends have other causes.
"""

import _thread
import contextlib
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import ray

POLL_S = 5.0
_SHORT = 300  # characters of what Ray says


class ProcessLost(RuntimeError):
    """A process of verl's died; the message names it, with what Ray says of its death and what helps."""


@contextlib.contextmanager
def ended_when_a_process_dies() -> Iterator[None]:
    """While the block runs, looks every POLL_S seconds which actors are dead.

    Raises:
        ProcessLost: one died that was not meant to.
    """
    done, found = threading.Event(), []

    def watch() -> None:
        while not done.wait(POLL_S):
            if lost := _lost_process_now():
                found.append(lost)
                _thread.interrupt_main()
                return

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    except BaseException as error:  # a call to the dead process may have failed before the watch came round
        lost = found[0] if found else _lost_process_now()
        if lost is None:
            raise
        raise ProcessLost(lost) from (None if isinstance(error, KeyboardInterrupt) else error)
    finally:
        done.set()


def _lost_process_now() -> str | None:
    return lost_process(ray._private.state.actors()) if ray.is_initialized() else None


def lost_process(actors: Mapping[str, Mapping[str, Any]]) -> str | None:
    """The sentence about the first actor that died and was not meant to; None if all are well.

    `actors` is Ray's table: by id, with State, ActorClassName, Name, Pid and DeathCause (ray/src/ray/protobuf/gcs.proto).
    """
    dead = [actor for actor in actors.values() if actor["State"] == "DEAD"]
    for actor in sorted(dead, key=lambda actor: actor["EndTime"]):
        cause = str(actor["DeathCause"])
        who = f"{actor['Name'] or actor['ActorClassName']} (process {actor['Pid']})"
        if "oom_context" in cause:
            said = re.search(r'error_message: "(.*?)(?:\\n|")', cause)
            memory = re.search(r"was ([\d.]+GB used / [\d.]+GB) limit", said[1] if said else "")
            return (
                f"Ray ended {who} because the machine ran out of memory"
                + (f": {memory[1]}" if memory else "")
                + ". End other programs, or give the job a larger machine or smaller batches."
            )
        if "WORKER_DIED" in cause and "SYSTEM_ERROR" in cause:
            detail = re.search(r"Worker exit detail: (.*?)(?: Some common causes|\\n|\"|$)", cause)
            return (
                f"{who} died without a word{f' ({detail[1][:_SHORT]})' if detail else ''}: most likely the system ended it "
                "because memory ran out, or it crashed in compiled code; the log's lines before this say which."
            )
    return None
