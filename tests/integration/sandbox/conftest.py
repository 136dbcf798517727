"""A sandbox for a test, in both modes; nothing of it is left."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.sandbox.world import families, gone, there
from verifiers.sandbox import confine
from verifiers.sandbox.client import Sandbox

PROBLEM = confine.problem()
confined = pytest.mark.skipif(PROBLEM is not None, reason=f"no sandbox on this machine: {PROBLEM}")


@pytest.fixture(params=[pytest.param(False, marks=confined, id="confined"), pytest.param(True, id="unsafe")])
async def sandbox(request: pytest.FixtureRequest) -> AsyncIterator[Sandbox]:
    made = Sandbox(2, unsafe=request.param)
    yield made
    pids = {pid for ours in families(made).values() for pid in ours} | made.pids
    await made.close()
    assert await gone(lambda: not there(pids))
