"""What an AWS account asks of every job: the file aws.yaml, which a facilitator writes once and attendees copy.

The file lies in the repository's root and git ignores it. aws/aws.example.yaml has every key. Without the file, nothing
is asked; local mode does not read it.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from sagemaker.core.shapes import Tag
from sagemaker.core.training.configs import Networking

from workshop.checks.instances import find_instance
from workshop.errors import WorkshopError
from workshop.folders import REPOSITORY

ACCOUNT_FILE = REPOSITORY / "aws.yaml"
# Nothing listens there, so a call ends at once; a VPC without a route to IAM lets each wait for minutes.
_NOWHERE = "http://127.0.0.1:9"


class AccountError(WorkshopError):
    """aws.yaml cannot be used; the message says in which line, and what to write."""


@dataclass(frozen=True)
class AccountSettings:
    """The keys of aws.yaml; what is not set is None, empty or as AWS has it by default."""

    role: str | None = None  # ARN or name
    bucket: str | None = None
    tracking_uri: str | None = None
    kms_key: str | None = None  # of a job's disk and of its output in S3
    subnets: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    network_isolation: bool = False
    tags: dict[str, str] = field(default_factory=dict)
    wandb_secret_name: str | None = None
    hf_secret_name: str | None = None
    validate_role: bool = True  # False where no route leads to IAM

    def networking(self) -> Networking | None:
        """For ModelTrainer(networking=...)."""
        if not self.subnets and not self.network_isolation:
            return None
        return Networking(
            subnets=list(self.subnets) or None,
            security_group_ids=list(self.security_group_ids) or None,
            enable_network_isolation=self.network_isolation or None,
        )

    def sdk_tags(self) -> list[Tag] | None:
        """For ModelTrainer(tags=...)."""
        return [Tag(key=key, value=value) for key, value in self.tags.items()] or None

    def volume_kms_key(self, instance_type: str) -> str | None:
        """For Compute(volume_kms_key_id=...): None where the instance has a disk of its own.

        Such a disk is encrypted by the instance, and CreateTrainingJob refuses VolumeKmsKeyId with it. Raises AccountError
        where there is a volume and the key is an alias: S3 takes one for a job's output, VolumeKmsKeyId does not.
        """
        found = find_instance(instance_type)
        if self.kms_key is None or (found and found.local_disk_gb):
            return None
        if self.kms_key.rpartition(":")[2].startswith("alias/"):
            raise AccountError(
                f"{ACCOUNT_FILE.name}: kms_key is {self.kms_key!r}, and SageMaker takes no alias for the disk of "
                f"{instance_type}. Write the key's own id or ARN: aws kms describe-key --key-id {self.kms_key} shows it."
            )
        return self.kms_key

    def job_environment(self) -> dict[str, str]:
        """Variables that tell a job the names of its secrets."""
        names = {"WANDB_SECRET_NAME": self.wandb_secret_name, "HF_SECRET_NAME": self.hf_secret_name}
        return {variable: name for variable, name in names.items() if name}

    def kernel_environment(self) -> dict[str, str]:
        """Variables for this process, set before the first ModelTrainer: without validate_role, the SDK leaves IAM alone.

        The variable of the SDK's own stops its check of the role alone. It also asks IAM before each upload, where it
        carries on without an answer.
        """
        if self.validate_role:
            return {}
        return {"SAGEMAKER_VALIDATE_ROLE": "false", "AWS_ENDPOINT_URL_IAM": _NOWHERE}


def read_account(path: Path = ACCOUNT_FILE) -> AccountSettings:
    """The settings of the file; the defaults where there is no file.

    Raises AccountError, with the line, at the first key that is unknown or twice there, or whose value cannot be right.
    """
    if not path.is_file():
        return AccountSettings()
    try:
        node = yaml.compose(path.read_text(encoding="utf-8"), yaml.SafeLoader)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise AccountError(f"{path.name} is no YAML: {error}") from error
    if node is None:
        return AccountSettings()
    if not isinstance(node, yaml.MappingNode):
        raise AccountError(f"{path.name} must have lines of the form key: value.")
    values: dict[str, Any] = {}
    for key_node, value_node in node.value:
        where = f"{path.name}, line {key_node.start_mark.line + 1}"
        key, value = (
            yaml.SafeLoader("").construct_object(part, deep=True) for part in (key_node, value_node)
        )
        if key not in _CHECKS:
            raise AccountError(f"{where}: there is no key {key!r}. There are: {', '.join(_CHECKS)}.")
        if key in values:
            raise AccountError(f"{where}: {key} is there twice. Keep one.")
        if problem := _CHECKS[key](value):
            raise AccountError(f"{where}: {key} is {value!r}. {problem}")
        values[key] = tuple(value) if isinstance(value, list) else value
    if bool(values.get("subnets")) != bool(values.get("security_group_ids")):
        raise AccountError(
            f"{path.name}: a VPC is both subnets and security_group_ids. Give both, or neither for SageMaker's own network."
        )
    if values.get("validate_role") is False and not values.get("role", "arn:").startswith("arn:"):
        raise AccountError(
            f"{path.name}: with validate_role: false, role must be the ARN, as only IAM knows whose name {values['role']!r} is."
        )
    return AccountSettings(**values)


def _text(pattern: str, write: str) -> Callable[[Any], str | None]:
    """Checks a text as a whole; `write` says what to write instead."""

    def check(value: Any) -> str | None:
        return None if isinstance(value, str) and re.fullmatch(pattern, value) else write

    return check


def _ids(prefix: str, most: int) -> Callable[[Any], str | None]:
    """Checks a list of ids such as subnet-0123456789abcdef0."""

    def check(value: Any) -> str | None:
        right = isinstance(value, list) and 0 < len(value) <= most
        if right and all(
            isinstance(item, str) and re.fullmatch(rf"{prefix}-[0-9a-f]{{8,17}}", item) for item in value
        ):
            return None
        return f"Write a list of 1 to {most} ids: [{prefix}-0123456789abcdef0]."

    return check


def _yes_or_no(value: Any) -> str | None:
    return None if isinstance(value, bool) else "Write true or false."


def _secret(value: Any) -> str | None:
    write = (
        "Write the name (or ARN) of a secret in AWS Secrets Manager; docs/secrets.md shows how to make one."
    )
    if not isinstance(value, str) or not re.fullmatch(
        r"[A-Za-z0-9/_+=.@-]{1,512}|arn:aws[a-z-]*:secretsmanager:\S+", value
    ):
        return write
    if re.fullmatch(r"hf_[A-Za-z0-9]{20,}|[0-9a-f]{40}|wandb_v1_\S+", value):
        return f"That looks like the token itself, which would be readable in every job: revoke it. {write}"
    return None


def _tags(value: Any) -> str | None:
    texts = isinstance(value, dict) and all(isinstance(text, str) for pair in value.items() for text in pair)
    if not texts or len(value) > 50:
        return 'Write up to 50 lines of texts, numbers in quotes: cost-center: "1234".'
    for key, text in value.items():
        if not re.fullmatch(r"(?!aws:)[\w\s.:/=+@-]{1,128}", key, re.IGNORECASE):
            return (
                f"The tag {key!r} must have 1 to 128 letters, digits and _.:/=+-@, and not begin with aws:."
            )
        if not re.fullmatch(r"[\w\s.:/=+@-]{0,256}", text):
            return f"The value {text!r} may have 256 letters, digits and _.:/=+-@."
    return None


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    "role": _text(
        r"arn:aws[a-z-]*:iam::\d{12}:role/[\w+=,.@/-]{1,512}|[\w+=,.@-]{1,64}",
        "Write the role's name, or its ARN: arn:aws:iam::123456789012:role/NAME.",
    ),
    "bucket": _text(
        r"(?!xn--)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]",
        "Write the bucket's name alone, without s3:// and without a folder.",
    ),
    "tracking_uri": _text(
        r"arn:aws[a-z-]*:sagemaker:[a-z0-9-]+:\d{12}:mlflow-(app|tracking-server)/\S+|https?://\S+",
        "Write the ARN of an MLflow App or tracking server, or the address of a server of your own: "
        "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-NAME.",
    ),
    "kms_key": _text(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:key/[\w-]+|(arn:aws[a-z-]*:kms:[a-z0-9-]+:\d{12}:)?alias/[\w/-]+"
        r"|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}",
        "Write the key's id, or its ARN: arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab.",
    ),
    "subnets": _ids("subnet", 16),  # the most that VpcConfig takes (botocore's model of CreateTrainingJob)
    "security_group_ids": _ids("sg", 5),
    "network_isolation": _yes_or_no,
    "tags": _tags,
    "wandb_secret_name": _secret,
    "hf_secret_name": _secret,
    "validate_role": _yes_or_no,
}
