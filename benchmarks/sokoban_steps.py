"""Sokoban steps with rendering per second on one core: ``python benchmarks/sokoban_steps.py ``.

The environment plays random moves in whole episodes over the training levels, resets included: a level that is never
reset soon has its boxes stuck, and blocked moves are cheap. Measured beside it, in the same run: the cost of rendering
alone, the floor that no step with text output can beat.
"""

import argparse
import random
import time

import lab

from skillsd.envs import make_taskset
from skillsd.envs.sokoban.game import DIRECTIONS, Board
from skillsd.envs.sokoban.generate import generate


def rate(function, seconds=1.0, step=200):
    """Calls per second, best of five windows; the clock is read every ``step`` calls."""
    best = 0.0
    for _ in range(5):
        count, started = 0, time.perf_counter()
        while (passed := time.perf_counter() - started) < seconds / 5:
            for _ in range(step):
                function()
            count += step
        best = max(best, count / passed)
    return best


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    arguments = parser.parse_args()
    tasks, rng = make_taskset("sokoban").tasks("train"), random.Random(0)
    boards = [Board(task.data["level"]) for task in tasks]
    moves = [rng.choice(DIRECTIONS) for _ in range(997)]
    state = {"i": 0}

    def board_step():
        i = state["i"] = state["i"] + 1
        board = boards[i % len(boards)]
        board.move(moves[i % 997])
        return str(board)

    taskset = make_taskset("sokoban")
    world = taskset.make()
    texts = [f"```{move}```" for move in moves]
    state["done"] = True

    def environment_step():
        i = state["i"] = state["i"] + 1
        if state["done"] or i % taskset.max_turns == 0:
            world.reset(tasks[i // taskset.max_turns % len(tasks)])
        step = world.step(texts[i % 997])
        state["done"] = step.done
        return step.observation

    found = {
        "environment_steps_per_second": rate(environment_step),
        "board_steps_per_second": rate(board_step),
        "renderings_per_second": rate(lambda: str(boards[0])),
        "generated_levels_per_second": rate(lambda: generate(rng.randrange(2**31)), step=1),
    }
    found["environment_step_over_rendering"] = found["renderings_per_second"] / found["environment_steps_per_second"]
    for name, value in found.items():
        print(f"{name:34s} {value:12,.1f}")
    lab.save(arguments, found)


if __name__ == "__main__":
    main()
