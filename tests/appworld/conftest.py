"""These tests need AppWorld's engine: `make test-appworld` sets it up; without it they are skipped."""

from __future__ import annotations

import pytest

from skillsd.envs import make_taskset
from skillsd.envs.appworld.install import build_pack, find_engine
from skillsd.errors import UsageError


@pytest.fixture(scope="session")
def engine():
    try:
        found = find_engine()
    except UsageError as error:
        pytest.skip(str(error))
    build_pack(lambda text: None)
    return found


@pytest.fixture(scope="session")
def tasks(engine):
    found = make_taskset("appworld", servers=2, timeout=10.0)
    yield found
    found.pool.close()


def block(code):
    return f"```python\n{code}\n```"


def play(taskset, task, messages):
    """(prompt, steps, score) of one episode."""
    world = taskset.make()
    try:
        prompt, steps = world.reset(task), []
        for message in messages:
            steps.append(world.step(message))
            if steps[-1].done:
                break
        return prompt, steps, world.score()
    finally:
        world.close()
