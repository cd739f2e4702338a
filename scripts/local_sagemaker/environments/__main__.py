"""Build a virtual environment, or find the one that exists already, and print its folder.

    python3 -m local_sagemaker.environments --name workshop --requirements requirements.txt --link .venv

It runs before anything is installed, so it uses the standard library only.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from local_sagemaker.environments import EnvironmentBuildError, build_environment, link_environment
from local_sagemaker.environments.build import DISK_NEEDED_GB


def main(arguments: list[str] | None = None) -> int:
    """Build or find the environment; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m local_sagemaker.environments", description=__doc__.split("\n")[0]
    )
    parser.add_argument("--name", required=True, help="first part of the environment's folder name")
    parser.add_argument("--requirements", type=Path, nargs="+", required=True, help="requirements files")
    parser.add_argument(
        "--first", nargs="*", default=[], help="files or specifiers to install before the rest"
    )
    parser.add_argument(
        "--disk-gb",
        type=float,
        default=DISK_NEEDED_GB,
        help="what must be free for it (default: %(default)s)",
    )
    parser.add_argument("--link", type=Path, help="make this path a symbolic link to the environment")
    options = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that pip is ended too

    def log(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        environment = build_environment(
            options.requirements, name=options.name, first=options.first, disk_gb=options.disk_gb, log=log
        )
        if options.link:
            link_environment(options.link, environment)
    except EnvironmentBuildError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Interrupted; the half-built environment was removed.", file=sys.stderr)
        return 130
    print(environment)
    return 0


if __name__ == "__main__":
    sys.exit(main())
