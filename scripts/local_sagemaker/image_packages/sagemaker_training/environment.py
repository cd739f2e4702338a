"""The job as its container sees it: folders, hosts, channels and hyperparameters, by the toolkit's names.

Read from the files below /opt/ml/input/config:
https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html
"""

import json
import os
import shutil
import subprocess
from typing import Any

# The toolkit's own variable for another place than /opt/ml; set where jobs have none.
base_dir = os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml")
code_dir = os.path.join(base_dir, "code")
model_dir = os.path.join(base_dir, "model")
input_dir = os.path.join(base_dir, "input")
input_config_dir = os.path.join(input_dir, "config")
output_dir = os.path.join(base_dir, "output")
output_data_dir = os.path.join(output_dir, "data")
output_intermediate_dir = os.path.join(output_dir, "intermediate")
_OF_THE_TOOLKIT = "sagemaker_"  # such hyperparameters are not the script's


def read_hyperparameters() -> dict[str, Any]:
    """The hyperparameters, each read as JSON where it is JSON."""
    return {name: _value(text) for name, text in _read("hyperparameters").items()}


def read_resource_config() -> dict[str, Any]:
    """The job's hosts and their groups."""
    return _read("resourceconfig")


def read_input_data_config() -> dict[str, Any]:
    """How each channel is given, by its name."""
    return _read("inputdataconfig")


def channel_path(channel: str) -> str:
    """Folder of a channel's data."""
    return os.path.join(input_dir, "data", channel)


def num_cpus() -> int:
    """Cores of the machine."""
    return os.cpu_count() or 1


def num_gpus() -> int:
    """GPUs that nvidia-smi lists; 0 without it."""
    if shutil.which("nvidia-smi") is None:
        return 0
    listed = subprocess.run(["nvidia-smi", "--list-gpus"], capture_output=True, text=True)
    return sum(line.startswith("GPU ") for line in listed.stdout.splitlines())


class Environment:
    """A snapshot of the container's environment. Files are read that are not given."""

    def __init__(
        self,
        resource_config: dict[str, Any] | None = None,
        input_data_config: dict[str, Any] | None = None,
        hyperparameters: dict[str, Any] | None = None,
    ):
        resources = self.resource_config = resource_config or read_resource_config()
        self.input_data_config = input_data_config or read_input_data_config()
        given = hyperparameters or read_hyperparameters()
        self.hyperparameters = {k: v for k, v in given.items() if not k.startswith(_OF_THE_TOOLKIT)}
        self.additional_framework_parameters = {
            k: v for k, v in given.items() if k.startswith(_OF_THE_TOOLKIT)
        }
        self.channel_input_dirs = {name: channel_path(name) for name in self.input_data_config}
        self.job_name = os.environ.get("TRAINING_JOB_NAME")

        self.hosts: list[str] = resources["hosts"]
        self.current_host: str = resources["current_host"]
        self.master_hostname = self.hosts[0]
        self.is_master = self.current_host == self.master_hostname
        self.network_interface_name = resources.get("network_interface_name", "eth0")
        self.topology = resources.get("topology", [])
        self.current_instance_type = resources.get("current_instance_type", "local")
        self.current_instance_group = resources.get("current_group_name", "homogeneousCluster")
        groups = resources.get("instance_groups", [])
        self.instance_groups_dict = {group["instance_group_name"]: group for group in groups}
        self.instance_groups = list(self.instance_groups_dict)
        own = self.instance_groups_dict.get(self.current_instance_group, {"hosts": []})
        self.current_instance_group_hosts: list[str] = own["hosts"]
        self.is_hetero = len(groups) > 1
        self.num_cpus, self.num_gpus = num_cpus(), num_gpus()

        self.model_dir, self.input_dir, self.input_config_dir = model_dir, input_dir, input_config_dir
        self.output_dir, self.output_data_dir = output_dir, output_data_dir
        self.output_intermediate_dir = output_intermediate_dir

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(
            f"Environment.{name}: local_sagemaker's stand-in for sagemaker_training has not got it. If the job needs it, name"
            " sagemaker-training in its requirements.txt; installing that needs a C compiler"
        )


def _read(name: str) -> dict[str, Any]:
    with open(os.path.join(input_config_dir, f"{name}.json"), encoding="utf-8") as file:
        return json.load(file)


def _value(text: Any) -> Any:
    try:
        return json.loads(text)
    except (TypeError, ValueError):
        return text
