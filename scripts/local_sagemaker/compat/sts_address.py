"""The SageMaker SDK gives its STS clients an explicit AWS address, which outranks AWS_ENDPOINT_URL.

Seen in: sagemaker 3.27.0 (sagemaker-core 2.27.0): `Session.account_id`, `Session.default_bucket` and
`get_execution_role` pass endpoint_url=sts_regional_endpoint(region) to boto3.
Patched: `sts_regional_endpoint` in the two modules that define it.
Goes when: the SDK's STS clients follow AWS_ENDPOINT_URL.
"""

from collections.abc import Callable


def follow_endpoint(url: str) -> Callable[[], None]:
    """Make the SDK's STS clients talk to `url`; returns a function that undoes it.

    Does nothing where the SDK is not installed: plain boto3 follows AWS_ENDPOINT_URL.
    """
    try:
        from sagemaker.core import common_utils
        from sagemaker.core.helper import session_helper
    except ModuleNotFoundError:
        return lambda: None
    originals = [(module, module.sts_regional_endpoint) for module in (common_utils, session_helper)]
    for module, _ in originals:
        module.sts_regional_endpoint = lambda _region: url

    def restore() -> None:
        for module, function in originals:
            module.sts_regional_endpoint = function

    return restore
