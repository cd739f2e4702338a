"""Every patch of a library that the endpoint needs, one file each, with its reason and the version it is for.

tests/test_local_sagemaker_compat.py shows the trouble that each patch cures, and fails once it has gone.
moto is not patched: see `local_sagemaker.api.operations`.
"""
