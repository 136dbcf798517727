"""One hypothesis profile for all tests: how long an example takes says nothing on a shared machine."""

from hypothesis import settings

settings.register_profile("ponder", deadline=None)
settings.load_profile("ponder")
