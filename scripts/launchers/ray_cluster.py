"""A Ray cluster as a launcher for ModelTrainer: ModelTrainer(distributed=RayCluster(...), ...)."""

import secrets
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import Field, PrivateAttr
from sagemaker.train.distributed import DistributedConfig

TOKEN_FILE = "ray_auth_token"


class RayCluster(DistributedConfig):
    """Join all hosts of the job to one Ray cluster and start the entry script on its head, the first host.

    The SDK copies the driver into the job (`sm_drivers/distributed_drivers`) and runs it on every host. In the script
    `ray.init()` finds the cluster. If a host does not join in time, or is lost later, the job fails and names it.

    Parameters:
        process_count_per_node (Optional[int]): GPU slots that each host offers to Ray; default: its GPUs, or one. On a
            host without GPUs the slots are logical: Ray counts them, and they hold no device.
        join_timeout_s (int): longest wait for all hosts, from the start of the driver on the head.
        dashboard_port (Optional[int]): serve Ray's dashboard on this port of the head, reachable from that host only;
            default: no dashboard.
    """

    process_count_per_node: int | None = Field(default=None, ge=1)
    join_timeout_s: int = Field(default=600, ge=1)
    dashboard_port: int | None = Field(default=None, ge=1024, le=65535)
    _shipped: TemporaryDirectory | None = PrivateAttr(default=None)

    @property
    def driver_dir(self) -> str:
        """Folder that the SDK ships to the job, made anew for each job since it holds the job's token.

        Whoever has the token of a Ray cluster may run code in it, so it has to be a secret that the hosts of one job
        share and nobody else knows. A request can be read by everyone who may describe jobs, a container's variables
        are printed to its log, and the private network of a job is not private in a shared VPC. The drivers, though,
        travel like the job's source: through S3, to be read by those who may read that source.
        """
        self._shipped = TemporaryDirectory(prefix="ray-drivers-")
        folder = Path(self._shipped.name)
        shutil.copytree(Path(__file__).parent / "drivers", folder, dirs_exist_ok=True)
        (folder / TOKEN_FILE).write_text(secrets.token_hex(32))
        return str(folder)

    @property
    def driver_script(self) -> str:
        """The driver's file name in that folder."""
        return "ray_driver.py"
