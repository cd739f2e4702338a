"""Build, or find, a job's environment: python -m local_sagemaker.environments.image_build BASE RESULT [REQUIREMENTS].

Prints progress; writes {"environment": folder} or {"error": message} to the file RESULT. Standard library
only, since every job starts it and waits for it.
"""

import sys
from pathlib import Path

from local_sagemaker.environments import EnvironmentBuildError, job_environment
from local_sagemaker.home import write_json


def main(base: str, result: str, requirements: str | None = None) -> None:
    try:
        environment = job_environment(
            Path(requirements) if requirements else None, log=print, base=Path(base)
        )
        write_json(Path(result), {"environment": str(environment)})
    except EnvironmentBuildError as error:
        print(f"The environment could not be built: {error}")
        write_json(Path(result), {"error": str(error)})


if __name__ == "__main__":
    main(*sys.argv[1:])
