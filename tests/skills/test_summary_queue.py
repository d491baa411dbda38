"""The queue under summarisers that quit, hang, lie or drown; and processes that must be able to end."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from skillsd.skills import Skill
from skillsd.skills.summarize.queue import SummaryQueue
from skillsd.types import SummaryRequest, Task, Trajectory

SKILL = Skill(success_analysis="a", mistake_analysis="b", golden_workflow="c")


def requests(*names):
    return [SummaryRequest(Trajectory(name, 1, 0, "p", [1]), Task(name)) for name in names]


class Scripted:
    """Does what the task's name says; whatever hangs does so until ``release``."""

    name = "scripted"

    def __init__(self):
        self.release, self.done = threading.Event(), []

    def summarize(self, request):
        word = request.task.id.split("-")[0]
        if word == "hang":
            self.release.wait()
        if word == "quit":
            sys.exit(3)
        if word == "raise":
            raise RuntimeError("no")
        self.done.append(request.task.id)
        return "a skill, surely" if word == "lie" else SKILL


@pytest.fixture
def scripted():
    made = Scripted()
    yield made
    made.release.set()


def test_whatever_a_summariser_does_training_goes_on(scripted):
    queue = SummaryQueue(scripted, workers=2)
    queue.submit(requests("quit-1", "raise-1", "lie-1", "quit-2", "fine-1"))
    found = queue.collect(wait=True, timeout=20)
    assert [s.error for s in found] == [
        "SystemExit: 3",
        "RuntimeError: no",
        "the summariser returned str, not a Skill",
        "SystemExit: 3",
        None,
    ]
    assert [s.skill for s in found] == [None] * 4 + [SKILL]


def test_a_hang_is_given_up_and_its_thread_replaced(scripted):
    queue = SummaryQueue(scripted, workers=1, limit=0.3)
    queue.submit(requests("hang-1", "fine-1", "hang-2", "fine-2"))
    found = queue.collect(wait=True, timeout=20)
    assert [s.error for s in found] == ["no answer within 0.3 seconds", None] * 2
    scripted.release.set()  # the two come back late: their answers are not handed out again
    queue.submit(requests("fine-3"))
    assert [s.trajectory.task_id for s in queue.collect(wait=True, timeout=20)] == ["fine-3"]
    assert queue.pending == []


def test_a_hang_does_not_hold_up_collection_without_waiting_either(scripted):
    queue = SummaryQueue(scripted, workers=1, limit=0.2)
    queue.submit(requests("hang-1", "fine-1"))
    assert queue.collect() == []
    found, deadline = [], time.monotonic() + 20
    while len(found) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
        found += queue.collect()
    assert [s.trajectory.task_id for s in found] == ["hang-1", "fine-1"]


def test_a_backlog_is_bounded_and_keeps_its_order(scripted):
    queue = SummaryQueue(scripted, workers=1, max_pending=3)
    queue.submit(requests("hang-1", "fine-1", "fine-2", "fine-3", "fine-4"))
    scripted.release.set()
    found = queue.collect(wait=True, timeout=20)
    assert [s.trajectory.task_id for s in found] == ["hang-1", "fine-1", "fine-2", "fine-3", "fine-4"]
    assert [s.error for s in found] == [None] * 3 + ["refused: 3 summaries are pending"] * 2
    queue.submit(requests("fine-5"))
    assert queue.collect(wait=True, timeout=20)[0].skill == SKILL


def test_all_workers_work_also_when_requests_come_one_by_one(scripted):
    queue = SummaryQueue(scripted, workers=3)
    queue.submit(requests("hang-1"))
    queue.submit(requests("fine-1"))
    deadline = time.monotonic() + 20
    while "fine-1" not in scripted.done and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scripted.done == ["fine-1"]
    assert queue.collect() == []  # but not before the one submitted first


def test_close_drains_and_leaves_in_pending_what_is_lost(scripted):
    queue = SummaryQueue(scripted, workers=1)
    queue.submit(requests("fine-1", "fine-2", "hang-1", "fine-3"))
    drained = queue.close(drain=True, timeout=0.5)
    assert [s.trajectory.task_id for s in drained] == ["fine-1", "fine-2"]
    assert [t.task_id for t in queue.pending] == ["hang-1", "fine-3"]
    assert queue.collect(wait=True) == []  # returns, though two will never be ready
    scripted.release.set()
    time.sleep(0.1)
    assert "fine-3" not in scripted.done


HANGING = """
import sys, threading
from skillsd.types import Task
from skillsd.types import SummaryRequest
from skillsd.skills.summarize.queue import SummaryQueue
from skillsd.types import Trajectory

class Hangs:
    name = "hangs"
    def summarize(self, request):
        threading.Event().wait()

queue = SummaryQueue(Hangs())
queue.submit([SummaryRequest(Trajectory("t", 1, 0, "p", [1]), Task("t"))])
print("waiting", flush=True)
"""


def test_a_hanging_summariser_does_not_block_exit():
    done = subprocess.run([sys.executable, "-c", HANGING], timeout=30, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "waiting\n", "")


def test_ctrl_c_interrupts_the_wait():
    # Started by a shell in the background, a process inherits that SIGINT is ignored.
    heard = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    code = heard + HANGING + "try:\n    queue.collect(wait=True)\nexcept KeyboardInterrupt:\n    print('stopped')\n"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "waiting\n"
    time.sleep(2.0)  # the child must have reached its try, also on a busy machine
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=20)[0] == "stopped\n"
    assert process.returncode == 0
