"""The scenarios as a Markdown table: ``python table.py ROOT``."""

from __future__ import annotations

import json
import sys
from pathlib import Path


def main() -> None:
    """Print it, one line a scenario, with the instruction of its first variant."""
    tasks = json.loads((Path(sys.argv[1]) / "pack.json").read_text("utf-8"))["tasks"]
    print("| scenario | split | difficulty | apps | for example |\n|---|---|---|---|---|")
    firsts = [e for name, e in tasks.items() if name.endswith("_1") and not e["split"].startswith("practice")]
    for entry in sorted(firsts, key=lambda e: (e["split"] != "train", e["split"], e["difficulty"], e["scenario"])):
        apps = ", ".join(entry["apps"])
        print(f"| {entry['scenario']} | {entry['split']} | {entry['difficulty']} | {apps} | {entry['instruction']} |")


if __name__ == "__main__":
    main()
