"""Secrets of a job, by their names in AWS Secrets Manager: requests and logs hold only the names.

| variable | the secret's value |
|---|---|
| HF_SECRET_NAME | a token of the Hugging Face Hub, for models that want one |
| WANDB_SECRET_NAME | a key of Weights & Biases |

A value is a text, or a JSON object with the key HF_TOKEN or WANDB_API_KEY. It stays in the environment of the process that
read it.
"""

import json
import os


class SecretError(Exception):
    """A secret that cannot be read, or is not what it should be; the message says what to change, and never the value."""


def provide_hub_token() -> None:
    """Gives this process the Hub's token in HF_TOKEN, where huggingface_hub looks for it at each request.

    Without HF_SECRET_NAME nothing changes, nor where HF_TOKEN is set. Every process of a job has to call this.

    Raises:
        SecretError: as `read_secret`.
    """
    name = os.environ.get("HF_SECRET_NAME")
    if name and not os.environ.get("HF_TOKEN"):
        os.environ["HF_TOKEN"] = read_secret(name, "HF_TOKEN")


def read_secret(name: str, key: str) -> str:
    """Value of a secret in AWS Secrets Manager: its text, or one key of it where it is a JSON object.

    Raises:
        SecretError: it does not exist, may not be read, or lacks the key.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    # A training container's region is in AWS_REGION, and boto3 reads AWS_DEFAULT_REGION.
    region = os.environ.get("AWS_REGION")
    try:
        client = boto3.client("secretsmanager", region_name=region)
        text = client.get_secret_value(SecretId=name)["SecretString"]
    except (BotoCoreError, ClientError, KeyError) as error:
        raise SecretError(
            f"The secret '{name}' could not be read ({type(error).__name__}: {error}). Does it exist in this region, "
            "and may the job's role call secretsmanager:GetSecretValue on it?"
        ) from error
    try:
        content = json.loads(text)
    except ValueError:
        return text.strip()
    if not isinstance(content, dict):
        return text.strip()
    if key not in content:
        raise SecretError(f"The secret '{name}' is a JSON object without the key {key}.")
    return str(content[key])
