"""The smallest things that settings can be tried on: a hall of rooms as environment, a random model, a feigned vLLM."""

import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

from skillsd import load_config
from skillsd.envs import register
from skillsd.policy.loading import load_policy
from skillsd.runs.folder import RunDir
from skillsd.skills import Skill
from skillsd.training.learner import Learner
from skillsd.training.loop import Loop
from skillsd.training.scoring import Row, Scorer, assign_advantages
from skillsd.training.teacher import Teacher
from skillsd.training.trainer import Trainer
from skillsd.types import Score, Step, Task, Trajectory, Turn

SKILL = Skill(success_analysis="go on", mistake_analysis="never stop", golden_workflow="one two three")
SMALL = [
    "env.name=hall", "skills.summarizer=trajectory", "model.device=cpu", "rollout.max_new_tokens=4",
    "rollout.tasks_per_iteration=2", "rollout.group_size=2", "eval.tasks=1", "trainer.iterations=4",
]  # fmt: skip


class Hall:
    """Five tasks a split, each of ``turns`` turns. ``slow``: the call that takes ``seconds``. Counts who is inside."""

    name = "hall"

    def __init__(self, turns=2, slow=None, seconds=0.0):
        self.max_turns, self.turns, self.slow, self.seconds = 3, turns, slow, seconds
        self.lock, self.inside, self.most, self.closed = threading.Lock(), 0, 0, 0

    def tasks(self, split):
        return [Task(f"{split}/{i}") for i in range(5)]

    def make(self):
        self.pause("make")
        return Room(self)

    def reference(self, task):
        return SKILL

    def group(self, task):
        return "even" if int(task.id[-1]) % 2 == 0 else "odd"

    def pause(self, call):
        if self.slow == call:
            time.sleep(self.seconds)

    def enter(self, step):
        with self.lock:
            self.inside += step
            self.closed += step < 0
            self.most = max(self.most, self.inside)


class Room:
    def __init__(self, hall):
        self.hall, self.turn = hall, 0

    def reset(self, task):
        self.hall.enter(1)
        self.hall.pause("reset")
        return f"Room {task.id}. Which way?"

    def step(self, action):
        self.turn += 1
        self.hall.pause("step")
        return Step("On and on.", self.turn == self.hall.turns)

    def score(self):
        self.hall.pause("score")
        return Score(float(self.turn), True, 1.0)

    def close(self):
        self.hall.pause("close")
        self.hall.enter(-1)


register("hall", Hall)


def settings(folder, *overrides):
    return load_config("sokoban", [f"model.path={folder}", *SMALL, *overrides])


@contextmanager
def loop(config, out, told=None, kind=Loop, trainer=Trainer):
    """A loop whose trainer has its bank, ready for the first iteration."""
    run = RunDir(out)
    run.create(config)

    def listen(what, data):
        if what == "warning" and told is not None:
            told.append(data["text"])

    made = kind(trainer(config, run, listen))
    made.open(None)
    try:
        yield made
    finally:
        made.close()


@contextmanager
def trainer(config, out, told=None):
    """A trainer with its bank, ready for the first iteration."""
    with loop(config, out, told) as made:
        yield made.trainer


class ScorerAndLearner(Learner, Scorer):
    """What scores, and what learns from it. The log-probs of the rows may be made up."""

    def __init__(self, model, config):
        Learner.__init__(self, model, config)
        Scorer.__init__(self, model, config)
        self.compared = True


def rows(count=6, length=9, taught=True):
    """Groups of two with made-up tokens and log-probs; the last token of each three is the environment's."""
    generator = torch.Generator().manual_seed(1)

    def ids(number):
        return torch.randint(5, 250, (number,), generator=generator).tolist()

    made = []
    for i in range(count):
        size = length + i
        mask = [int(j % 3 < 2) for j in range(size)]
        logps = [-3.0 * action for action in mask]
        played = Trajectory(f"t{i // 2}", 1, i % 2, "", ids(4), ids(size), mask, logps, reward=float(i % 2))
        made.append(Row(played, played.prompt_ids, ids(10) if taught else None))
    assign_advantages(made, 1e-8)
    return made


def learner(folder, *overrides):
    config = settings(folder, *overrides)
    return ScorerAndLearner(load_policy(config.model, train=True).model, config)


def updated(made, batch=None, iteration=1):
    """Scores, metrics, and the gradients of every optimiser step as the optimiser gets them."""
    batch, steps, step = batch or rows(), [], made.adamw.step
    made.adamw.step = lambda: (steps.append([p.grad.clone() for p in made.parameters]), step())
    scores = made.score(batch, Teacher(made.spec.teacher, made.model))
    return scores, made.update(batch, scores, iteration), steps


def gradient(folder, *overrides, batch=None):
    """Of one step, in one piece, before it is clipped."""
    return flat(updated(learner(folder, "optim.max_grad_norm=1e9", *overrides), batch)[2][0])


def wait_until(condition):
    end = time.monotonic() + 5
    while not condition() and time.monotonic() < end:
        time.sleep(0.01)
    assert condition()


def flat(tensors):
    return torch.cat([tensor.reshape(-1) for tensor in tensors])


def request(name="t", turns=2, words=3, iteration=1):
    from skillsd.types import SummaryRequest

    made = [Turn("go", "wall " * words, True) for _ in range(turns)]
    return SummaryRequest(Trajectory(name, iteration, 0, "Push.", [1], turns=made), Task(name))


class FeignedVLLM:
    """What a run asks of a vLLM server. ``seconds``: how long a completion takes, and how long it is not healthy."""

    def __init__(self, positions=4096, seconds=0.0, sick=0.0):
        owner, self.calls, self.end = self, [], time.monotonic() + sick

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                self.answer({"data": [{"id": "policy", "max_model_len": positions}]}, time.monotonic() > owner.end)

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                owner.calls.append((self.path, body))
                if self.path == "/v1/completions":
                    time.sleep(seconds)
                    count = min(3, body["max_tokens"])
                    choice = {"token_ids": [40] * count, "logprobs": {"token_logprobs": [-1.0] * count}}
                    self.answer({"choices": [{**choice, "prompt_token_ids": body["prompt"]}]})
                else:
                    self.answer({"success": True})

            def answer(self, tree, well=True):
                data = json.dumps(tree).encode()
                self.send_response(200 if well else 503)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *arguments):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()
