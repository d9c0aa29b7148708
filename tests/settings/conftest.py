from __future__ import annotations

from functools import partial

import pytest

from storage.retention import RetentionOptions


@pytest.fixture
def retention_runs_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not once a minute."""
    monkeypatch.setattr("server.app.RetentionOptions", partial(RetentionOptions, interval=0.1))
