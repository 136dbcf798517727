"""The escape suite's attacks once more, as whoever runs this: root's suite runs it as an ordinary user.

    python as_user.py        prints one JSON object: what succeeded, what was left behind, how many were tried

Standard library and the sandbox only, so that any Python the user can read will do.
"""

from __future__ import annotations

import asyncio
import json

from tests.integration.sandbox.attacks import ATTACKS, STUCK, SURVIVORS
from tests.integration.sandbox.forgeries import FORGERIES
from tests.integration.sandbox.world import LIMITS, families, inside, passed, source_tests, world
from verifiers.sandbox import confine
from verifiers.sandbox.client import Sandbox
from verifiers.sandbox.limits import Limits

HONEST = "def attack(world):\n    return world['word']\n"


async def main() -> None:
    """Try everything."""
    problem = confine.problem()
    if problem is not None:
        print(json.dumps({"problem": problem}))
        return
    sandbox = Sandbox(1)
    succeeded: list[str] = []
    left: list[str] = []
    tried = 0
    with world() as around:
        honest = passed(await inside(sandbox, HONEST, around))
        before = families(sandbox)

        def note(name: str, through: bool) -> None:
            nonlocal tried
            tried += 1
            if through:
                succeeded.append(name)
            if families(sandbox) != before:
                left.append(name)

        for attack in ATTACKS:
            note(attack.name, passed(await inside(sandbox, attack.code, around)))
        for forgery in FORGERIES:
            note(forgery.name, passed(await sandbox.calls(forgery.code, source_tests(forgery.tests), LIMITS)))
        for name, code in STUCK.items():
            outcome = await inside(sandbox, code, around, Limits(wall_seconds=0.3, processes=4, memory_mb=512))
            note(name, not outcome.timed_out)
        for name, code in SURVIVORS.items():
            outcome = await inside(sandbox, code + HONEST, around)
            note(name, not passed(outcome))
    await sandbox.close()
    print(json.dumps({"honest": honest, "tried": tried, "succeeded": succeeded, "left": left}))


if __name__ == "__main__":
    asyncio.run(main())
