"""Ways to start a training script that the SageMaker SDK does not bring: subclasses of its DistributedConfig."""

from launchers.accelerate import AccelerateLaunch
from launchers.ray_cluster import RayCluster

__all__ = ["AccelerateLaunch", "RayCluster"]
