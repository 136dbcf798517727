"""What the rooms of one worker life share: the job, what it works with, and the tasks that end with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actors.engines.fleet import Fleet
from actors.logbook import Logbook
from actors.siblings import Siblings
from actors.tasks import Tasks
from budgets.cost import CostModel
from pipeline.records import Shard
from pipeline.spec import JobSpec
from pipeline.store import Store


@dataclass(frozen=True)
class Life:
    """One worker life. ``name`` is what journals, grants and attempts are filed under."""

    name: str
    spec: JobSpec
    cost: CostModel
    shards: Mapping[int, Shard]
    fleet: Fleet
    store: Store
    log: Logbook
    tasks: Tasks
    siblings: Siblings
