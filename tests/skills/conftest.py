"""What several tests of summarisers need."""

import pytest

from fault_server import serving


@pytest.fixture
def serve(request, monkeypatch):
    """Starts servers that misbehave as told; the key in the environment is the module's ``KEY``."""
    yield from serving(monkeypatch, request.module.KEY)
