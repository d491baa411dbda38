"""An environment of one's own: a hint names the way to the door, in words that the test split has in another order."""

from skillsd.envs import Score, Step, Task
from skillsd.errors import UsageError

WAYS = ("up", "down", "left", "right")
HINTS = {"train": ("The door is {}.", "Go {}.", "Not here: {}!"), "test": ("Go {}: the door!", "Here is {}.")}


class Door:
    def reset(self, task):
        self.task, self.turns, self.found = task, 0, False
        return f"{task.data['hint']}\nAnswer with up, down, left or right."

    def step(self, action):
        words = action.strip("`\n .").split()
        if not self.found:
            self.turns += 1
            self.found = words == [self.task.data["way"]]
        valid = len(words) == 1 and words[0] in WAYS
        return Step("Found." if self.found else "No door.", self.found, {"valid": valid, "action": action[:20]})

    def score(self):
        return Score(reward=1 / self.turns if self.found else 0.0, success=self.found, completion=float(self.found))

    def close(self):
        pass


class Doors:
    name, max_turns = "doors", 2

    def tasks(self, split):
        if split not in HINTS:
            raise UsageError(f"doors has no split {split!r}: train or test")
        pairs = [(hint, way) for hint in HINTS[split] for way in WAYS]
        return [Task(f"{split}-{i}", {"hint": h.format(w), "way": w}) for i, (h, w) in enumerate(pairs)]

    def make(self):
        return Door()
