"""How many examples hypothesis draws: those of its profile "ci" (pyproject.toml), or ten thousand others."""

from hypothesis import settings

settings.register_profile("thorough", settings.get_profile("ci"), max_examples=10_000, derandomize=False)
