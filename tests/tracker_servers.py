"""Servers of trackers that a test can kill: a real MLflow server, and what W&B's client needs of one."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from local_sagemaker.hosts.hosts import free_port

RUN = {"name": "run", "displayName": "run", "config": "{}", "historyLineCount": 0}
RUN |= {"id": "cnVu", "project": {"name": "project", "entity": {"name": "entity"}}}


@contextmanager
def mlflow_server(folder: Path) -> Iterator[tuple[str, subprocess.Popen]]:
    """Address and process (the leader of a group of its own) of a real MLflow server, whose store is folder/server.db.

    The artifacts of its runs are written by the client, as with SageMaker's (to S3).
    """
    port = free_port()
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{folder / 'server.db'}", "--workers", "1"]
    command += ["--no-serve-artifacts", "--default-artifact-root", (folder / "artifacts").as_uri()]
    # Six processes that nothing here asks for.
    settings = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with open(folder / "log", "w") as log:
        process = subprocess.Popen(command, env=settings, stdout=log, stderr=log, start_new_session=True)
    try:
        until = time.monotonic() + 90
        while True:
            with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                break
            assert process.poll() is None and time.monotonic() < until, (folder / "log").read_text()
            time.sleep(0.3)
        yield f"http://127.0.0.1:{port}", process
    finally:
        kill_group(process)  # asked in order, it waits for connections


def kill_group(process: subprocess.Popen) -> None:
    """SIGKILL to a server and its workers."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=30)


class WandbServer(ThreadingHTTPServer):
    """Takes runs of W&B's client: enough of its GraphQL and of its file stream for an online run to go on.

    Attributes:
        asked: the names of the operations and paths that came, in order.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def close(self) -> None:
        """From now on connections are refused."""
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: WandbServer

    def do_GET(self) -> None:
        self._answer({})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])) or b"{}")
        query = body.get("query", "")
        name = body.get("operationName") or next(
            (word for word in query.replace("(", " ").split()[1:2]), self.path.rpartition("/")[2]
        )
        self.server.asked.append(name)
        if "upsertBucket" in query:
            self._answer(
                {
                    "data": {
                        "upsertBucket": {
                            "bucket": RUN | {"name": body["variables"]["name"]},
                            "inserted": True,
                        }
                    }
                }
            )
        elif "viewer" in query:
            self._answer({"data": {"viewer": {"id": "dXNlcg==", "entity": "entity", "flags": "{}"}}})
        elif "createRunFiles" in query:
            files = [
                {"name": name, "uploadUrl": f"{self.server.url}/{name}"}
                for name in body["variables"]["files"]
            ]
            made = {"runID": RUN["id"], "uploadHeaders": [], "files": files}
            self._answer({"data": {"createRunFiles": made}})
        elif "project(" in query:
            self._answer({"data": {"project": None}})  # nothing there yet, so that any artifact may be logged
        else:
            self._answer({"data": {}} if query else {})

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self._answer({})

    def _answer(self, content: dict) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass
