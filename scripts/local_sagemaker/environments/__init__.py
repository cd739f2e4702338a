"""Virtual environments in place of images, kept by content; `python -m local_sagemaker.environments` builds one.

What is offered here uses the standard library only: it runs before anything is installed. (image.py does not:
the endpoint alone imports it.)
"""

from local_sagemaker.environments.build import (
    BASE_REQUIREMENTS,
    DISK_NEEDED_GB,
    MARKER,
    PIP_VERSION,
    PYTHON_NEEDED,
    build_environment,
    check_job_requirements,
    environments_folder,
    job_environment,
    link_environment,
    requirement_lines,
)
from local_sagemaker.environments.pip_run import EnvironmentBuildError, Log

__all__ = [
    "BASE_REQUIREMENTS",
    "DISK_NEEDED_GB",
    "EnvironmentBuildError",
    "Log",
    "MARKER",
    "PIP_VERSION",
    "PYTHON_NEEDED",
    "build_environment",
    "check_job_requirements",
    "environments_folder",
    "job_environment",
    "link_environment",
    "requirement_lines",
]
