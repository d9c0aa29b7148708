"""The version of this code; pyproject.toml has the same (tests/unit/test_repository.py)."""

VERSION = "0.1.0"
