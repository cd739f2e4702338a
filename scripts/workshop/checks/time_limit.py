"""A limit for code of others that runs in this process, such as a chat template: a loop in it need not end."""

import contextlib
import signal
import threading
from collections.abc import Iterator


class Overtime(BaseException):
    """It did not end in time. No Exception, so that nothing on the way takes it for an error of its own."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raises Overtime in the block once it has run for so long; only in the main thread, where a notebook's cells run.

    A timer that is set already, such as a test's, goes on afterwards.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> None:
        raise Overtime

    handler = signal.signal(signal.SIGALRM, stop)
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, left, interval)
