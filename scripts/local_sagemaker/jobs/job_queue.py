"""One first-in-first-out queue for all jobs, with a limit on how many run at once."""

import threading
import traceback
from collections import deque

from local_sagemaker.home import note
from local_sagemaker.jobs.attempt import Order
from local_sagemaker.jobs.job import Job


class JobQueue:
    """Starts jobs in the order they came, at most `limit` at a time."""

    def __init__(self, limit: int):
        self._limit = limit
        self._waiting: deque[Job] = deque()
        self._running: dict[Job, threading.Thread] = {}
        self._closed = False
        self._lock = threading.Lock()

    def submit(self, job: Job) -> None:
        """Add a job; it starts as soon as its turn comes."""
        with self._lock:
            if self._waiting or len(self._running) >= self._limit:
                ahead = len(self._waiting) + len(self._running)
                job.record.phase("Pending", f"Waiting for {ahead} earlier job(s) on this machine")
            self._waiting.append(job)
        self._start_next()

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        with self._lock:
            return not self._running and not self._waiting

    def close(self) -> None:
        """End every job and start no more; returns when all have ended."""
        with self._lock:
            self._closed = True
            jobs, self._waiting = [*self._running, *self._waiting], deque()
            threads = list(self._running.values())
        for job in jobs:
            job.order(Order.SHUTDOWN)
        for thread in threads:
            thread.join()
        for job in jobs:
            if not job.record.done:  # it never started
                job.run()

    def _start_next(self) -> None:
        with self._lock:
            while self._waiting and not self._closed and len(self._running) < self._limit:
                job = self._waiting.popleft()
                thread = threading.Thread(target=self._run, args=(job,), name=job.request.name, daemon=True)
                self._running[job] = thread
                job.record.phase("Starting")  # not in the thread: so the jobs start in the queue's order
                thread.start()

    def _run(self, job: Job) -> None:
        try:
            job.run()
        except Exception:
            note(traceback.format_exc())  # the job itself already says InternalServerError
        finally:
            with self._lock:
                del self._running[job]
            self._start_next()

    def stop(self, job: Job) -> None:
        """Stop a job; one that still waits leaves the queue at once."""
        job.order(Order.STOP)
        with self._lock:
            waited = job in self._waiting
            if waited:
                self._waiting.remove(job)
        if waited:
            job.run()  # which sees the order and ends
            self._start_next()
