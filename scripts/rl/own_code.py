"""Functions of one's own that a recipe names: `my_rewards.brevity` is the function brevity in my_rewards.py.

The file lies beside the training script, where Python finds it, in every process of a job.
"""

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import threading
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

from rl.spelling import unknown_name

NEWLINE = b"\n"
_SHARED = Path(__file__).resolve().parents[1]
_STDLIB = Path(sysconfig.get_path("stdlib")).resolve()
_INSTALLED = {"site-packages", "dist-packages"}
_importing = threading.RLock()
# By a module's file, when it and the files that it imports or names were written, in ns
_written: dict[Path, dict[Path, int]] = {}


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
    module = _load_file(module_name, f"{kind} '{name}'")
    if not hasattr(module, attribute):
        functions = [key for key, value in vars(module).items() if callable(value) and key[0] != "_"]
        raise OwnCodeError(f"{unknown_name(kind, attribute, functions)} (in {_file(module)})")
    function = getattr(module, attribute)
    if not callable(function):
        raise OwnCodeError(
            f"{kind} '{name}' is no function, but {type(function).__name__} in {_file(module)}."
        )
    return function


def _load_file(module_name: str, what: str) -> ModuleType:
    path = f"{module_name.replace('.', '/')}.py"
    try:
        return _imported(module_name)
    except ModuleNotFoundError as error:
        if error.name and f"{module_name}.".startswith(f"{error.name}."):
            raise OwnCodeError(
                f"{what}: there is no file {path} beside the training script. "
                "Write it into the module's folder `scripts`, which is what a job is sent."
            ) from error
        raise MissingPackage(
            f"{what}: {path}{_line(error, path)} needs '{error.name}', which is neither a file beside it nor an "
            "installed package (the job's are in requirements.txt)."
        ) from error
    except UnicodeDecodeError as error:
        raise OwnCodeError(
            f"{what}: {path} is not {error.encoding.upper()} (byte 0x{error.object[error.start]:02x}, line "
            f"{error.object[: error.start].count(NEWLINE) + 1}): save it as UTF-8, or name its encoding in the first line, "
            "such as # -*- coding: latin-1 -*-"
        ) from error
    except (Exception, SystemExit) as error:  # whatever the file does when it is imported, its author is told
        raise OwnCodeError(
            f"{what}: {path}{_line(error, path)} cannot be imported: {type(error).__name__}: {error}"
        ) from error


def _check_encoding(file: str | None) -> None:
    """Raises UnicodeDecodeError for a file that is not in the encoding which it says, or in UTF-8 (PEP 3120).

    An import lets it pass where Python 3.11 does not read it, in a comment; the file run as a script does not.
    """
    if file and file.endswith(".py"):
        content = Path(file).read_bytes()
        try:
            importlib.util.decode_source(content)
        except SyntaxError:
            content.decode()  # in the first two lines, where an encoding is named, bytes that are no UTF-8 are such an error
            raise


def _imported(module_name: str) -> ModuleType:
    """The module; a notebook's cell may have written its file a moment ago, or written it or one that it imports anew."""
    with _importing:
        if module_name in sys.modules:
            origin = getattr(sys.modules[module_name], "__file__", None)
        else:
            importlib.invalidate_caches()
            found = importlib.util.find_spec(module_name)
            origin = found.origin if found else None
            _check_encoding(origin)
        if not origin or not origin.endswith(".py") or "." in module_name:
            return importlib.import_module(module_name)
        return _imported_file(module_name, Path(origin))


def _imported_file(module_name: str, file: Path) -> ModuleType:
    """The module of a file: imported if it is not, or if the file or one that it imports was written anew since."""
    module, known = sys.modules.get(module_name), _written.get(file, {})
    changed = _times(known) != known
    if module and known and not changed:
        return module
    root = _root(module_name, file)
    times = _times(_with_imported(file, root))
    if changed or not module:
        _forget({*known, file}, module_name, root)
    if not module:
        _written[file] = times  # also if it fails: what it imports may be what is mended
        return importlib.import_module(module_name)
    if changed:
        _check_encoding(str(file))
        module = importlib.reload(module)
    _written[file] = times
    return module


def _with_imported(file: Path, root: Path) -> list[Path]:
    """The file and those under `root` that it imports or names; the file alone while one of them is no Python."""
    found: dict[Path, bytes] = {}
    try:
        _collect(file, found, root)
    except (SyntaxError, ValueError, OSError):
        pass  # the import says it
    return [file, *found]


def _times(files: Iterable[Path]) -> dict[Path, int]:
    """When files were written, in ns; 0 for one that is no longer there."""
    return {file: file.stat().st_mtime_ns if file.is_file() else 0 for file in files}


def _forget(files: Iterable[Path], module_name: str, root: Path) -> None:
    """Has Python read files anew: else it takes what it compiled of one with the same second and size, and the modules
    that it has. The module itself stays, to be reloaded."""
    for file in files:
        with contextlib.suppress(OSError):
            Path(importlib.util.cache_from_source(str(file))).unlink(missing_ok=True)
        name = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        if name != module_name and getattr(sys.modules.get(name), "__file__", None) == str(file):
            del sys.modules[name]
            package, _, child = name.rpartition(".")
            # The package has it as an attribute too, and gives that to `from package import child`.
            if package in sys.modules:
                vars(sys.modules[package]).pop(child, None)


def _line(error: BaseException, path: str) -> str:
    """Where in the file an import failed; Python says that of a syntax error by itself."""
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if Path(frame.filename).as_posix().endswith(f"/{path}")]
    return f", line {lines[-1]}," if lines else ""


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or module.__name__


def source_digest(names: Iterable[str]) -> str:
    """SHA-256 of the files that these functions (dotted names) are written in, to tell one version from another.

    Python files of the same folder that they import count too, in packages as well, and files there that they name, such as
    words.json; what is installed does not, nor do the packages that all modules share.

    Raises:
        OwnCodeError: as `load_function`.
    """
    digest = hashlib.sha256()
    for name in sorted(names):
        function = inspect.unwrap(load_function(name, "function"))
        # The file that is named, and the one that it may have the function from.
        modules = [name.rpartition(".")[0], getattr(function, "__module__", "")]
        files = [getattr(sys.modules.get(module), "__file__", None) for module in modules]
        found: dict[Path, bytes] = {}
        for module, file in zip(modules, files, strict=True):
            if file:
                root = _root(module, Path(file))
                _collect(Path(file), found, root)
                _follow(module, root, found, root)
        digest.update(f"{name}\n".encode() + b"".join(found[path] for path in sorted(found)))
    return digest.hexdigest()


def _collect(file: Path, found: dict[Path, bytes], root: Path) -> None:
    """The content of a file and of those under `root` that it imports or names, by path."""
    if file in found or file.suffix != ".py":
        return
    found[file] = file.read_bytes()
    for node in ast.walk(ast.parse(found[file])):
        for folder, name in _imports(node, file, root):
            _follow(name, folder, found, root)
        for named in _named(node, file, root):
            found.setdefault(named, named.read_bytes())


def _named(node: ast.AST, file: Path, root: Path) -> list[Path]:
    """The files whose path, from the file's folder or from `root`, where a job's script runs, is a text in it."""
    if not isinstance(node, ast.Constant) or not isinstance(node.value, str):
        return []
    paths = [folder / node.value for folder in {file.parent, root}]
    return [path for path in paths if os.path.isfile(path) and path.is_relative_to(root) and _is_own(path)]


def _imports(node: ast.AST, file: Path, root: Path) -> list[tuple[Path, str]]:
    """What a statement imports: the folder in which Python looks, and the dotted name, which may end in a function's."""
    if isinstance(node, ast.Import):
        return [(root, alias.name) for alias in node.names]
    if not isinstance(node, ast.ImportFrom):
        return []
    folders = [*file.parents][node.level - 1 : node.level] if node.level else [root]
    names = [".".join(filter(None, [node.module, alias.name])) for alias in node.names]
    return [(folder, name) for folder in folders if folder.is_relative_to(root) for name in names]


def _follow(name: str, folder: Path, found: dict[Path, bytes], root: Path) -> None:
    """Collects the files of a dotted name, those of the packages before it too."""
    files = [folder / "__init__.py"] if folder != root else []
    for part in name.split("."):
        folder = folder / part
        files += [folder.with_suffix(".py"), folder / "__init__.py"]
    for file in files:
        if file.is_file() and _is_own(file):
            _collect(file, found, root)


def _is_own(file: Path) -> bool:
    """Whether a file is neither installed nor of the packages that all modules share."""
    file = file.resolve()
    shared = any(file.is_relative_to(_SHARED / package) for package in ("rl", "job", "compat"))
    return not shared and not file.is_relative_to(_STDLIB) and not _INSTALLED & {*file.parts}


def _root(module_name: str, file: Path) -> Path:
    """The folder in which Python found a module, or the outermost package that it is in."""
    return file.parents[module_name.count(".") + (file.stem == "__init__")]
