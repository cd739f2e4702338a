"""Fixtures that more than one test module uses."""

import signal

from endpoint_fixtures import endpoint, make_trainer  # noqa: F401

# A shell that starts something in the background makes it ignore Ctrl-C, and so does all that it starts in turn.
signal.signal(signal.SIGINT, signal.default_int_handler)
