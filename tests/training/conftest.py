"""What several tests of training need."""

import pytest

from runs_lab import config
from skillsd import train


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "run"
    result = train(config("trainer.iterations=5"), out)
    assert result.iterations == 5
    assert result.after is not None
    return out
