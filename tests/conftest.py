"""For all tests: a slow machine is no failure of a property, so hypothesis sets no time limit for an example."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
