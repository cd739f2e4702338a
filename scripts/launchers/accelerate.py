"""`accelerate launch` as a launcher for ModelTrainer: ModelTrainer(distributed=AccelerateLaunch(...), ...)."""

from pathlib import Path

from sagemaker.train.distributed import DistributedConfig


class AccelerateLaunch(DistributedConfig):
    """Start the entry script with `accelerate launch` on every host of the job.

    The SDK copies the driver into the job (`sm_drivers/distributed_drivers`) and runs it there. Number and
    addresses of the hosts come from the job, so the YAML needs none of them.

    Parameters:
        config_file (str): the accelerate YAML, relative to the job's source_dir.
        process_count_per_node (Optional[int]): processes on each host; default: one per GPU, or one.
    """

    config_file: str
    process_count_per_node: int | None = None

    @property
    def driver_dir(self) -> str:
        """Folder that the SDK ships to the job."""
        return str(Path(__file__).parent / "drivers")

    @property
    def driver_script(self) -> str:
        """The driver's file name in that folder."""
        return "accelerate_driver.py"
