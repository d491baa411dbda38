"""Make the shipped level files anew: ``python -m skillsd.envs.sokoban.make_levels FOLDER``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from skillsd.envs.sokoban.game import canonical_hash
from skillsd.envs.sokoban.generate import Level, generate
from skillsd.seeding import derive_seed

#: variant -> boxes, least optimal length (1-box levels of fewer moves are solved by chance), and
#: {split: [(depth, levels)]}. 29 + 48 + 19 is 30/50/20 % of 96.
SPLITS: dict[str, tuple[int, int, dict[str, list[tuple[int, int]]]]] = {
    "paper": (2, 1, {"train": [(15, 29), (20, 48), (25, 19)], "test": [(25, 64)], "extra": [(25, 512)]}),
    "one_box": (1, 3, {"train": [(15, 128)], "test": [(15, 256)], "validation": [(15, 64)]}),
}


def make(variant: str) -> dict[str, list[tuple[list[str], int, int]]]:
    """{split: [(rows, depth, optimal)]}; no level comes twice, not even rotated or reflected."""
    boxes, least, splits = SPLITS[variant]
    seen: set[str] = set()
    made: dict[str, list[tuple[list[str], int, int]]] = {}
    for split, mix in splits.items():
        levels = []
        for depth, count in mix:
            index = wanted = 0
            while wanted < count:
                level: Level = generate(derive_seed("levels", variant, split, depth, index), boxes=boxes, depth=depth)
                index += 1
                key = canonical_hash(level.text)
                if level.optimal >= least and key not in seen:
                    seen.add(key)
                    levels.append((level.text.split("\n"), level.depth, level.optimal))
                    wanted += 1
        made[split] = levels
    return made


def main(folder: Path) -> None:
    """Write the files of all variants into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for variant in SPLITS:
        text = json.dumps(make(variant), separators=(",", ":")) + "\n"
        (folder / f"{variant}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).with_name("levels"))
