"""Functions of one's own that a recipe names: `my_rewards.brevity` is the function brevity in my_rewards.py.

The file lies beside the training script, where Python finds it, in every process of a job.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from rl.spelling import unknown_name


class OwnCodeError(Exception):
    """A function of one's own that cannot be had; the message says which file and what to do."""


class MissingPackage(OwnCodeError):
    """The file needs a package that is not installed here."""


def load_function(name: str, kind: str) -> Callable[..., Any]:
    """The function with a dotted name; `kind` is what it is used as, for the messages.

    Raises:
        OwnCodeError: no such file or function, the file cannot be imported, or the name is that of something else;
            MissingPackage: a package that the file imports is not installed.
    """
    module_name, _, attribute = name.rpartition(".")
    if not module_name or not all(part.isidentifier() for part in name.split(".")):
        raise OwnCodeError(f"{kind} '{name}': write file.function, such as my_{kind}s.mine.")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and module_name.startswith(error.name):
            raise OwnCodeError(
                f"{kind} '{name}': there is no file {module_name.replace('.', '/')}.py beside the training script. "
                "Write it into the module's folder `scripts`, which is what a job is sent."
            ) from error
        raise MissingPackage(
            f"{kind} '{name}': {module_name}.py needs the package '{error.name}', which is not installed here."
        ) from error
    except Exception as error:  # whatever the file does when it is imported, its author is told
        raise OwnCodeError(
            f"{kind} '{name}': {module_name}.py cannot be imported: {type(error).__name__}: {error}"
        ) from error
    if not hasattr(module, attribute):
        functions = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise OwnCodeError(f"{unknown_name(kind, attribute, functions)} (in {module_name}.py)")
    function = getattr(module, attribute)
    if not callable(function):
        raise OwnCodeError(
            f"{kind} '{name}' is no function, but {type(function).__name__} in {module_name}.py."
        )
    return function


def source_digest(names: Iterable[str]) -> str:
    """SHA-256 of the files that these functions (dotted names) are written in, to tell one version from another.

    Raises:
        OwnCodeError: as `load_function`.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        file = inspect.getsourcefile(inspect.unwrap(load_function(name, "function")))
        digest.update(f"{name}\n".encode() + (Path(file).read_bytes() if file else b""))
    return digest.hexdigest()
