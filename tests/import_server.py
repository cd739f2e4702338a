"""A process that has imported the libraries and forks a job whenever it is asked: a job's imports cost it nothing.

    python import_server.py SOCKET torch transformers trl

A request is one line of JSON on a connection: {"script", "arguments", "variables", "folder", "log", "ranks"}. With
`ranks` several processes are forked, which find one another as torchrun's do, by RANK and its like; when one fails, the
others are ended. The answer is the job's process id, and its exit code in the end. See forked_jobs.py for the other side. It ends when its standard input does.
"""

import atexit
import importlib
import json
import os
import random
import runpy
import select
import shutil
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable


def main(address: str, modules: list[str]) -> None:
    for name in modules:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody asks how a job ended but over its connection
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{address}.new")
        listener.listen(16)
        os.rename(f"{address}.new", address)  # there as soon as it answers, and not before
        while listener in select.select([listener, sys.stdin], [], [])[0]:
            connection, _ = listener.accept()
            if not os.fork():
                listener.close()
                os.setsid()
                _run_job(connection)
            connection.close()  # the job's end of it tells that the job has ended, or was killed
    shutil.rmtree(os.path.dirname(address))


def _run_job(connection: socket.socket) -> None:
    """The job's first process: it runs the script, or starts those that do and waits for them."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    request = json.loads(connection.makefile().readline())
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    connection.sendall(f"{os.getpid()}\n".encode())
    os.environ.clear()
    os.environ.update(request["variables"])
    if datasets := sys.modules.get("datasets"):  # it has read this when it was imported
        datasets.config.HF_DATASETS_CACHE = request["variables"]["HF_DATASETS_CACHE"]
    os.chdir(request["folder"])
    if request["ranks"]:
        code = _run_ranks(request, connection)
    else:
        code = _run_script(request)
    connection.sendall(f"{code}\n".encode())
    os._exit(code)


def _run_ranks(request: dict, connection: socket.socket) -> int:
    """Forks the processes, gives each its rank and waits for all; what torchrun does on one host."""
    here = request["ranks"]
    count, first = here["processes"], here["processes"] * here["host_rank"]
    ranks = set()
    for local in range(count):
        own = {"RANK": first + local, "LOCAL_RANK": local, "GROUP_RANK": here["host_rank"]}
        own |= {"WORLD_SIZE": count * here["hosts"], "LOCAL_WORLD_SIZE": count, "MASTER_ADDR": "127.0.0.1"}
        own |= {"MASTER_PORT": here["port"], "TORCHELASTIC_RUN_ID": "none", "TORCHELASTIC_RESTART_COUNT": 0}
        if not (process := os.fork()):
            connection.close()
            os.environ.update({name: str(value) for name, value in own.items()})
            os._exit(_run_script(request))
        ranks.add(process)
    worst = 0
    while ranks:
        process, status = os.wait()
        code = os.waitstatus_to_exitcode(status)
        ranks.discard(process)
        if code and not worst:
            worst = 1  # as torchrun's own
            for other in ranks:
                os.kill(other, signal.SIGTERM)
    return worst


def _run_script(request: dict) -> int:
    """The script as the main program of this process, up to its exit handlers; returns the exit code."""
    atexit._clear()  # the handlers of the libraries that the server imported: they remove what all jobs share
    random.seed()  # or all jobs would choose alike
    sys.argv = [request["script"], *request["arguments"]]
    own = [path for path in request["variables"]["PYTHONPATH"].split(os.pathsep) if path not in sys.path]
    sys.path[:0] = [os.path.dirname(request["script"]), *own]
    return max(_code_of(lambda: runpy.run_path(request["script"], run_name="__main__")), _code_of(_end))


def _end() -> None:
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()


def _code_of(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as exit:
        if isinstance(exit.code, str):
            print(exit.code, file=sys.stderr)
        return exit.code if isinstance(exit.code, int) else int(exit.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
