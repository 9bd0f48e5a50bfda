"""Every crash point of a run: it dies before and after each replace, link and fsync, and in the middle of each save.

    python -m tests.campaign.crash_points [every nth]

After each the same command goes on; the folder must then hold what an uninterrupted run's does, bit by bit. Prints what
differs, and counts. Takes about 12 minutes for all.
"""

import sys
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.helpers.crashes import check_kill, traced


def main(every: int) -> int:
    """Try every nth point; return the exit status."""
    counts: Counter[str] = Counter()
    with TemporaryDirectory() as folder:
        root = Path(folder)
        run, trace = traced(root)
        points = [
            (number, when)
            for number, (name, _) in enumerate(trace)
            for when in ("before", "after", *(["middle"] if name == "save" else []))
        ]
        for number, when in points[::every]:
            try:
                check_kill(root / f"{number}-{when}", run, number, when)
                counts["the same"] += 1
            except AssertionError as error:
                counts["different"] += 1
                print(f"{when} call {number}, {trace[number]}: {error}", flush=True)
    print(
        f"{len(trace)} calls, {len(points[::every])} of {len(points)} crash points: {dict(counts)}"
    )
    return int(counts["different"] > 0)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
