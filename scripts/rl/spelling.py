"""Errors about a name that does not exist say which one was meant."""

import difflib
from collections.abc import Iterable

FEW = 30


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """ "unknown reward 'acuracy'; did you mean 'accuracy'?", or if none comes close all names, where they are few."""
    names = list(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    few = (
        f"known: {', '.join(sorted(names))}."
        if len(names) <= FEW
        else f"none of {len(names)} known ones is like it."
    )
    hint = f"did you mean '{near[0]}'?" if near else few
    return f"unknown {kind} '{name}'; {hint}"
