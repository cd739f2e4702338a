"""Preflight of what own rewards and verdicts import: tried with this kernel's packages, they run with those of the job."""

import ast
import functools
import re
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from local_sagemaker.environments import BASE_REQUIREMENTS, EnvironmentBuildError, requirement_lines
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from workshop.checks.images import find_image
from workshop.checks.recipe_checks import as_list
from workshop.checks.request import WARNING, Check, JobRequest
from workshop.session.staging import SHARED

# What packages that this kernel does not have bring of those that it has; tests/test_workshop_import_checks.py resolves them.
_BRINGS = {
    "torch": ("jinja2", "networkx"),
    "datasets": ("dill", "multiprocess", "pandas", "pyarrow"),
    "unsloth": ("aiohttp", "json5", "nest-asyncio", "pillow"),
    "vllm": (
        *("aiohttp", "jsonschema", "lark", "pillow", "prometheus-client", "pydantic-settings"),
        *("python-json-logger", "pyzmq", "tabulate"),
    ),
    "ray": ("aiohttp", "jsonschema", "prometheus-client", "wrapt"),
    "verl": ("omegaconf", "pillow", "werkzeug"),
}


def check_imports(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """What own code imports from this kernel's packages is among those of the job; a warning, since the image may have it."""
    names = [str(name) for name in [*as_list(settings.get("rewards")), settings.get("verifier")]]
    own = [name for name in names if "." in name and all(map(str.isidentifier, name.split(".")))]
    packages = _installed(request)
    if not own or not request.requirements or packages is None or request.source_dir is None:
        return
    distributions = metadata.packages_distributions()
    imports: dict[str, str] = {}
    for name in own:
        imports = _imported(name, request.source_dir) | imports
    for module, where in imports.items():
        found = distributions.get(module, [])  # none: the trial says that it is not here
        if found and not packages & {canonicalize_name(name) for name in found}:
            yield Check(
                "imports",
                WARNING,
                f"{where} imports {module}, which is installed here, and {request.requirements} does not bring it: unless "
                f"the image has it, the job fails. Add {found[0]}=={metadata.version(found[0])} to {request.requirements}",
            )


def job_packages(request: JobRequest) -> set[str]:
    """Packages that the job has, as far as requirements and image tell: names in small letters, with - for _."""
    image = None if request.local or not request.image else find_image(request.image)
    held = {*image.compiled, *image.also} if image else set()
    return {canonicalize_name(name) for name in held} | (_installed(request) or set())


def _installed(request: JobRequest) -> set[str] | None:
    """What the requirements and every image bring, with what that needs; None: a line does not say which package it is.

    Where the job is given no requirements, the image has been built with one of the files.
    """
    if request.source_dir is None:
        return None
    given = [request.source_dir / request.requirements] if request.requirements else []
    files = given or sorted(request.source_dir.glob("requirements*.txt"))
    try:
        lines = [line for file in (BASE_REQUIREMENTS, *files) for line in requirement_lines(file)]
        wanted = [Requirement(re.split(r"\s--", line)[0]) for line in lines if not line.startswith("-")]
    except (EnvironmentBuildError, InvalidRequirement):
        return None
    found: set[tuple[str, frozenset[str]]] = set()
    while wanted:
        requirement = wanted.pop()
        one = canonicalize_name(requirement.name), frozenset(requirement.extras)
        if one not in found:
            found.add(one)
            wanted += _needed(*one)
    return {name for name, _ in found}


def _needed(name: str, extras: frozenset[str]) -> list[Requirement]:
    """What a package needs, as it says itself where it is installed."""
    needed = [Requirement(brought) for brought in _BRINGS.get(name, ())]
    try:
        said = _said_to_need(name)
    except metadata.PackageNotFoundError:
        return needed
    chosen = [{"extra": extra} for extra in (extras or {""})]
    return needed + [one for one in said if not one.marker or any(map(one.marker.evaluate, chosen))]


@functools.cache  # each preflight asks for the same two hundred
def _said_to_need(name: str) -> tuple[Requirement, ...]:
    """Raises PackageNotFoundError, which is not remembered: it may be installed before the next preflight."""
    return tuple(Requirement(line) for line in metadata.requires(name) or ())


def _imported(name: str, folder: Path) -> dict[str, str]:
    """Packages that the function `file.function` needs, and where they are first imported: "my_rewards.py, line 3,".

    Files of the folder that are imported count too; the standard library and what all modules share does not.
    """
    module, _, function = name.rpartition(".")
    found: dict[str, str] = {}
    files = [(file, function) for file in _files(module, folder)]
    for file, called in files:
        for line, imported in _statements(file, called):
            top = imported.split(".")[0]
            if own := _files(imported, folder):
                known = [known for known, _ in files]
                files += [(path, "") for path in own if top not in SHARED and path not in known]
            elif top not in sys.stdlib_module_names and top not in SHARED:
                found.setdefault(top, f"{file.relative_to(folder)}, line {line},")
    return found


def _files(name: str, folder: Path) -> list[Path]:
    """The folder's files that make up a dotted name, which may end in a function's; none: it is no module of the folder."""
    paths: list[Path] = []
    for part in name.split("."):
        folder = folder / part
        paths += [folder.with_suffix(".py"), folder / "__init__.py"]
    return [path for path in paths if path.is_file()]


def _statements(file: Path, function: str) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of what is imported with the file in any case, or when the function is called.

    What stands under `if`, `try` or `with`, or in other functions, a job may do without.
    """
    try:
        nodes = list(ast.parse(file.read_bytes()).body)
    except (SyntaxError, ValueError, OSError):
        return  # the trial says it
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name == function:
            nodes += node.body
