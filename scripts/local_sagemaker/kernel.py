"""A Jupyter kernel whose AWS calls all follow AWS_ENDPOINT_URL: what a rehearsal runs a notebook in.

    python scripts/local_sagemaker/kernel.py -f CONNECTION_FILE

It is ipykernel. One thing is changed before it starts: the SDK's STS calls, which would go to AWS whatever the environment
says (compat/sts_address.py). The notebook finds nothing of this package on its path.
"""

import os
import sys
from pathlib import Path


def main() -> None:
    scripts = str(Path(__file__).resolve().parents[1])
    sys.path[0] = scripts  # in place of this file's own folder
    from local_sagemaker.compat import sts_address

    sts_address.follow_endpoint(os.environ["AWS_ENDPOINT_URL"])
    sys.path.remove(scripts)
    for name in [name for name in sys.modules if name.partition(".")[0] == "local_sagemaker"]:
        del sys.modules[name]

    from ipykernel.kernelapp import launch_new_instance

    launch_new_instance()


if __name__ == "__main__":
    main()
