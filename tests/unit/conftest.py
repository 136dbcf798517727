"""For all unit tests: workers report more often than once a second, so that nothing waits for the next report."""

import pytest


@pytest.fixture(autouse=True)
def _hurried(monkeypatch):
    from actors import station

    monkeypatch.setattr(station, "SYNC_SECONDS", 0.05)
    monkeypatch.setattr(station, "SYNC_MIN_SECONDS", 0.01)
