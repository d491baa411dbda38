"""What the agent reads and how its answer is understood."""

from __future__ import annotations

import re

from skillsd.envs.sokoban.game import DIRECTIONS

PROMPT = """\
You are the player in Sokoban. Push every box onto a target; boxes cannot be pulled.
# wall, _ floor, O target, X box, P you, T box on target, S you on target.
Each turn, write one move, up, down, left or right, in triple backticks.

"""
INVALID = "No move was made: write exactly one of up, down, left, right in triple backticks.\n\n"

_BLOCK = re.compile(r"```(.*?)```", re.DOTALL)


def parse_action(message: str) -> str | None:
    """The one direction in triple backticks, after any free reasoning; None unless there is exactly one block
    and it holds exactly one direction (so "don't go up" is no move)."""
    blocks = _BLOCK.findall(message)
    if len(blocks) != 1 or message.count("```") != 2:
        return None
    word = blocks[0].strip().lower()
    return word if word in DIRECTIONS else None


def format_action(direction: str) -> str:
    """The message that makes the move ``direction``."""
    return f"```{direction}```"
