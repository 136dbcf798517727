"""This command's way into a Ray cluster: the one ``RAY_ADDRESS`` names, or a local one that ends with the command."""

from __future__ import annotations

import os
from typing import Any


class Cluster:
    """One a process."""

    def __init__(self) -> None:
        self._guardian: Any = None

    def connect(self, cpus: float) -> None:
        """``cpus``: slots a local cluster needs at least; it has as many as the machine has cores, or these and one."""
        import ray

        address = os.environ.get("RAY_ADDRESS")
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
            return
        from actors.guardian import guard

        # A local cluster must not outlive this process: Ray's daemons may survive a SIGKILL of theirs.
        self._guardian = guard()
        ray.init(
            address="local",
            num_cpus=max(os.cpu_count() or 1, int(cpus) + 1),
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )

    def close(self) -> None:
        """Leave the cluster; a local one is taken down. Actors end with their driver. Idempotent."""
        import ray

        if ray.is_initialized():
            ray.shutdown()
        if self._guardian is not None:
            self._guardian.terminate()
            self._guardian = None
