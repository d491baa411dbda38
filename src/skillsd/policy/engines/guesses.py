"""Guesses of what will be sampled next, from what was sampled before: agents say the same forms of words every turn."""

from __future__ import annotations

from collections.abc import Sequence

#: Tokens that a guess looks back on, and tokens guessed at once.
CONTEXT, MOST = 3, 4


class Guesses:
    """What followed each context of a few tokens, over all episodes of a rollout.

    A guess changes nothing but the time that it takes: what is sampled, with the same random numbers, is the same.
    """

    def __init__(self) -> None:
        #: The token that followed mostly, and by how much: it counts up where it follows, down where another does.
        self.known: dict[tuple[int, ...], tuple[int, int]] = {}

    def learn(self, before: Sequence[int], token: int) -> None:
        """``token`` was sampled behind ``before``."""
        key = tuple(before[-CONTEXT:])
        usual, lead = self.known.get(key, (token, 0))
        if usual == token:
            self.known[key] = token, min(lead + 1, 8)
        else:
            self.known[key] = (usual, lead - 2) if lead > 2 else (token, 0)

    def after(self, before: Sequence[int], most: int = MOST) -> list[int]:
        """What will probably follow ``before``, at most ``most`` tokens; nothing where that is open."""
        context, found = list(before[-CONTEXT:]), []
        for _ in range(min(most, MOST)):
            token, lead = self.known.get(tuple(context), (0, 0))
            if lead < 1:
                break
            found.append(token)
            context = [*context[1:], token]
        return found
