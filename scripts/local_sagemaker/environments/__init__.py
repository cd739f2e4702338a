"""Virtual environments in place of images, kept by content; `python -m local_sagemaker.environments` builds one.

What is offered here uses the standard library only: it runs before anything is installed. (image.py does not:
the endpoint alone imports it.)
"""

from local_sagemaker.environments.build import (
    BASE_REQUIREMENTS,
    build_environment,
    check_job_requirements,
    job_environment,
    link_environment,
    requirement_lines,
)
from local_sagemaker.environments.installer import EnvironmentBuildError, Log

__all__ = [
    "BASE_REQUIREMENTS",
    "EnvironmentBuildError",
    "Log",
    "build_environment",
    "check_job_requirements",
    "job_environment",
    "link_environment",
    "requirement_lines",
]
