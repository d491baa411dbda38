"""An environment whose episodes are of very unequal lengths."""

from skillsd.envs import Score, Step, Task


class Echo:
    """Observations of very unequal lengths."""

    def reset(self, task):
        self.lengths = list(task.data)
        return "go " + "x" * self.lengths.pop(0)

    def step(self, action):
        length = self.lengths.pop(0)
        return Step("see " + "y" * length, not self.lengths)

    def score(self):
        return Score(0.0, False, 0.0)

    def close(self):
        pass


class Echoes:
    name, max_turns = "echoes", 10

    def tasks(self, split):
        return [Task("a", [1, 3, 17, 2, 1]), Task("b", [14, 1, 1, 1]), Task("c", [2, 22, 1]), Task("d", [7, 2, 2, 9])]

    def make(self):
        return Echo()
