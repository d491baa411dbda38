"""What all tests need: the same number of threads everywhere, and small models."""

import os
import signal

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "2"  # runs are the same bit for bit only with the same number of threads
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that spin are 15 times slower on a busy machine

import pytest
import torch

pytest.register_assert_rewrite("settings_checks_learning", "settings_checks_rollouts", "settings_checks_skills")

from models_lab import save_model  # noqa: E402


@pytest.fixture(scope="session", params=["llama", "qwen3"])
def chatml_folder(request, tmp_path_factory):
    return save_model(tmp_path_factory.mktemp(request.param), request.param)


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="session", autouse=True)
def _hangup_is_not_ignored():
    """As it is under nohup, for the tests and whatever they start."""
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def _two_threads():
    torch.set_num_threads(2)


def pytest_terminal_summary(terminalreporter):
    """What a test has recorded of an architecture is shown, on however many processes it ran."""
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    told = [v for r in reports for name, v in getattr(r, "user_properties", ()) if name == "architecture"]
    if told:
        terminalreporter.section("architectures")
        terminalreporter.write_line("\n".join(sorted(set(told))))
