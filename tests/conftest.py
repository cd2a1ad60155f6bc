"""Before JAX is imported anywhere: eight CPU devices, and a rank promotion is an error."""

import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8").strip()
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
