"""Where a run is shown: on a terminal a block of lines that is rewritten, elsewhere (a log of CI) one line an event."""

import os
import shutil
import threading
import time
from collections import deque
from datetime import datetime
from typing import TextIO

LINES_A_MINUTE = 10  # in a log, at most; what must be said is always said


class Screen:
    """Lines that stay, and on a terminal a block below them. May be used by several threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self.rewrites = out.isatty() and os.environ.get("TERM") != "dumb"
        self._block: list[str] = []
        self._lock = threading.RLock()
        self._said: deque[float] = deque(maxlen=LINES_A_MINUTE - 2)  # two are kept for what must be said

    @property
    def columns(self) -> int:
        """Width of the terminal; 100 where there is none."""
        return shutil.get_terminal_size((100, 24)).columns

    def say(self, text: str, *, may_be_left_out: bool = False) -> None:
        """Write one line that stays. Where there were many within a minute, those that may be left out are."""
        with self._lock:
            now = time.monotonic()
            crowded = len(self._said) == self._said.maxlen and now - self._said[0] < 60
            if may_be_left_out and crowded and not self.rewrites:
                return
            self._said.append(now)
            block, self._block = self._block, []
            self._write(self._erased(block) + f"{datetime.now():%H:%M:%S}  {text}\n")
            self.show(block)

    def show(self, lines: list[str]) -> None:
        """Replace the block; where nothing can be rewritten, nothing is shown."""
        if not self.rewrites:
            return
        with self._lock:
            # A line that wraps would be two to the terminal, and one to what erases it.
            cut = [line[: self.columns - 1] for line in lines]
            self._write(self._erased(self._block) + "".join(f"{line}\n" for line in cut))
            self._block = cut

    def _erased(self, block: list[str]) -> str:
        return f"\x1b[{len(block)}F\x1b[J" if block else ""

    def _write(self, text: str) -> None:
        # A terminal with another encoding gets question marks rather than an error that ends the run.
        encoding = self._out.encoding or "utf-8"
        self._out.write(text.encode(encoding, "replace").decode(encoding))
        self._out.flush()
