"""The base class of every error that the workshop shows to a learner."""


class WorkshopError(Exception):
    """Says what is wrong, where, and what to do.

    In a notebook only the message is shown: the frames between the cell and the check that refused it
    would bury the one thing the reader needs.
    """

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]
