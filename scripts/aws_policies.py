"""The policies under aws/: what they allow, whether the calls of a rehearsal are within it, and filled in for one account.

    python scripts/aws_policies.py record CALLS.jsonl ...      # write aws/calls.json from what endpoints wrote down
    python scripts/aws_policies.py check CALLS.jsonl ...       # are all of these calls allowed?
    python scripts/aws_policies.py fill attendee-policy.json AWS::Region=eu-west-1 AWS::AccountId=123456789012 \\
        Bucket=my-bucket JobRole=my-role                       # the policy, ready for IAM

CALLS.jsonl is written by the local endpoint (scripts/local_sagemaker/api/calls.py), in its home. Exit code: 0, or 1 if a
call is not allowed or a value is missing.
"""

import argparse
import fnmatch
import json
import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError

FOLDER = Path(__file__).resolve().parents[1] / "aws"
RECORD = FOLDER / "calls.json"
# SageMaker reads and writes for a job with the job's role, as the job itself does.
POLICY_OF = {
    "notebook": "attendee-policy.json",
    "job": "job-role-policy.json",
    "service": "job-role-policy.json",
}
# Calls that no policy has to allow.
WITHOUT_PERMISSION = {
    "sts:GetCallerIdentity": "AWS asks no permission for it",
    "s3:ListAllMyBuckets": "boto3 looks for the bucket's date with it, and carries on where it may not",
    "s3:CreateBucket": "the SDK makes its default bucket; the workshop's is made by the stack",
}


class PolicyError(Exception):
    """A policy cannot be filled in; the message says what is missing."""


def recorded_actions(path: Path) -> dict[str, set[str]]:
    """Who called each IAM action ("notebook", "job", "service"), from calls.jsonl or from aws/calls.json."""
    if path.suffix == ".json":
        return {action: set(callers) for action, callers in json.loads(path.read_text()).items()}
    actions: dict[str, set[str]] = defaultdict(set)
    for line in path.read_text().splitlines():
        call = json.loads(line)
        actions[call["action"]].add(call["caller"])
    return dict(actions)


def missing_from_policies(recorded: dict[str, set[str]]) -> list[str]:
    """Recorded actions that the caller's policy does not allow, each as a sentence."""
    return [
        f"{action} by the {caller}: {POLICY_OF[caller]} does not allow it"
        for action, callers in sorted(recorded.items())
        for caller in sorted(callers)
        if action not in WITHOUT_PERMISSION and not allows(POLICY_OF[caller], action)
    ]


def unused_in_policies(recorded: dict[str, set[str]]) -> dict[str, list[str]]:
    """For each policy, the actions (as written in it) that no recorded call needs."""
    unused = {}
    for name in sorted(set(POLICY_OF.values())):
        called = [
            action for action, callers in recorded.items() if any(POLICY_OF[who] == name for who in callers)
        ]
        unused[name] = [
            pattern
            for pattern in actions_of(read_policy(name))
            if not any(_matches(pattern, action) for action in called)
        ]
    return unused


def read_policy(name: str) -> dict[str, Any]:
    """The policy as it lies in aws/, with ${...} where an account's values go."""
    return json.loads((FOLDER / name).read_text(encoding="utf-8"))


def actions_of(policy: dict[str, Any]) -> list[str]:
    """All actions of a policy's statements, wildcards as they are written."""
    return [action for statement in policy["Statement"] for action in statement["Action"]]


def allows(name: str, action: str) -> bool:
    """Whether some statement of the policy names the action; on what, is not asked."""
    return any(_matches(pattern, action) for pattern in actions_of(read_policy(name)))


def fill(name: str, values: dict[str, str]) -> str:
    """The text of a policy with the values in place of ${...}; ${!x} becomes IAM's own variable ${x}.

    AWS::Partition is that of AWS::Region (aws-us-gov, aws-cn), unless it is given.

    Raises PolicyError, naming every value that is missing or not asked for, or the region that is not known.
    """
    text = (FOLDER / name).read_text(encoding="utf-8")
    if "AWS::Partition" not in values:
        values = {"AWS::Partition": _partition(values.get("AWS::Region", "us-east-1")), **values}
    asked = set(re.findall(r"\$\{([^!}]+)\}", text))
    missing, unknown = sorted(asked - set(values)), sorted(set(values) - asked - {"AWS::Partition"})
    if missing or unknown:
        raise PolicyError(
            f"{name} needs {', '.join(f'{key}=...' for key in sorted(asked))}"
            + (f"; missing: {', '.join(missing)}" if missing else "")
            + (f"; not asked for: {', '.join(unknown)}" if unknown else "")
        )
    for key in asked:
        text = text.replace(f"${{{key}}}", values[key])
    return text.replace("${!", "${")


def _partition(region: str) -> str:
    try:
        return boto3.Session().get_partition_for_region(region)
    except BotoCoreError as error:
        raise PolicyError(
            f"AWS::Region={region}: {error} If the name is right, add AWS::Partition=... too (aws in most regions)."
        ) from error


def _matches(pattern: str, action: str) -> bool:
    return fnmatch.fnmatch(action.lower(), pattern.lower())


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("record", "check"):
        commands.add_parser(name).add_argument("calls", nargs="+", type=Path)
    filling = commands.add_parser("fill")
    filling.add_argument("policy")
    filling.add_argument("values", nargs="*", metavar="NAME=VALUE")
    options = parser.parse_args(arguments)
    if options.command == "fill":
        try:
            print(fill(options.policy, dict(value.split("=", 1) for value in options.values)))
        except (PolicyError, OSError, ValueError) as error:
            print(error, file=sys.stderr)
            return 1
        return 0
    recorded: dict[str, set[str]] = defaultdict(set)
    for path in options.calls:
        for action, callers in recorded_actions(path).items():
            recorded[action] |= callers
    if options.command == "record":
        lines = [f'"{action}": {json.dumps(sorted(callers))}' for action, callers in sorted(recorded.items())]
        RECORD.write_text("{\n " + ",\n ".join(lines) + "\n}\n", encoding="utf-8")
        print(f"{len(recorded)} actions written to {RECORD}")
    missing = missing_from_policies(recorded)
    print("\n".join(missing) or "every call is allowed by its policy")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
