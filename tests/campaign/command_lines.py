"""1,000 command lines over all keys of all commands, composed and checked without building anything.

    python -m tests.campaign.command_lines [number of lines] [seed ...]

Each must end in a configuration whose numbers are finite, or in one line that names a key that was typed. Prints the
lines that do not, and counts. Takes about 10 minutes of processor time for 1,000 lines.
"""

import io
import signal
import sys
import time
import traceback
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout, suppress
from typing import Any

from omegaconf import DictConfig

from gan_lab.commands import keys
from gan_lab.commands.launch import launch
from gan_lab.config import flatten, to_containers
from gan_lab.errors import InputError
from tests.helpers.command_lines import lines

SLOW_S = 20.0


def run_command(args: list[str]) -> tuple[str, str]:
    """Run a command line; return its outcome in one word, and its output."""
    found: list[dict[str, Any]] = []
    check = keys.check

    def only(command: str, config: DictConfig) -> None:
        check(command, config)
        found.append(to_containers(config))
        raise InputError("checked")

    keys.check = only
    said = io.StringIO()
    began = time.process_time()
    try:
        with redirect_stderr(said), redirect_stdout(io.StringIO()):
            status = launch(args[0], args[1:])
    except KeyboardInterrupt:
        raise
    except BaseException:
        return "traceback", traceback.format_exc()
    finally:
        keys.check = check
    err = said.getvalue().strip()
    if time.process_time() - began > SLOW_S:
        return "slow", err
    if status != 2 or not err.startswith("gan-lab: error: ") or "Error executing" in err:
        return "another end", err
    if found:
        numbers = [one for one in flatten(found[-1]).values() if isinstance(one, float)]
        return ("means it" if all(abs(n) < float("inf") for n in numbers) else "no number"), err
    if err.count("\n") and "Available options" not in err:
        return "several lines", err
    typed = [word.partition("=")[0].split(".")[-1] for word in args[1:]]
    return ("rejected by name" if any(name in err for name in typed) else "no key named"), err


def main(number: int, seeds: list[int]) -> int:
    counts: Counter[str] = Counter()
    with suppress(KeyboardInterrupt):
        for args in (one for seed in seeds for one in lines(number, seed)):
            end, said = run_command(args)
            counts[end] += 1
            if end not in ("means it", "rejected by name"):
                print(f"{end}: gan-lab {' '.join(args)}\n    {said[-600:]}", flush=True)
    print(f"{counts.total()} command lines: {dict(counts)}")
    return int(set(counts) > {"means it", "rejected by name"})


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # counts what was done
    given = [int(one) for one in sys.argv[1:]] or [1000]
    sys.exit(main(given[0], given[1:] or [1]))
