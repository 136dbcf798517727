"""Which of a worker's GPUs each of its engines sees.

vLLM takes the first devices it sees, so engines of one process must each be shown their own. Pure but for the
environment, which is set around the start of an engine only: its processes inherit it then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

VISIBLE = "CUDA_VISIBLE_DEVICES"


def visible_to(wanted: Mapping[str, int], visible: str | None = None) -> dict[str, str | None]:
    """Engine → the devices it is shown, as CUDA reads them; None: as this process sees them.

    ``wanted``: devices each engine spans. ``visible``: default, what Ray gave this process. Devices are dealt out in
    order. Where there are fewer than all engines span together, they share them: the job said so by
    ``cluster.gpus_per_worker``, and ``gpu_memory_utilization`` must divide the memory.
    """
    text = os.environ.get(VISIBLE, "") if visible is None else visible
    devices = [each.strip() for each in text.split(",") if each.strip()]
    if len(wanted) < 2 or len(devices) < sum(wanted.values()):
        return dict.fromkeys(wanted)
    shown: dict[str, str | None] = {}
    for name, count in wanted.items():
        shown[name], devices = ",".join(devices[:count]), devices[count:]
    return shown


@contextmanager
def environment(changes: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables for a while; those that are None stay as they are."""
    own = {name: value for name, value in changes.items() if value is not None}
    before = {name: os.environ.get(name) for name in own}
    os.environ.update(own)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
