"""Every combination of values: `gan-lab train -m model=dcgan,wgan_gp seed=range(3)`."""

from collections.abc import Sequence
from itertools import product

from hydra.core.override_parser.types import Override

from gan_lab.console import say
from gan_lab.errors import InputError
from gan_lab.sweeps.sweep import Sweep


class GridSweep(Sweep):
    """Tries every combination of the values that the command line lists."""

    def run(self, words: Sequence[str]) -> None:
        """Do what of the sweep is not done.

        Raises:
            InputError: for what cannot be run, before the first run; at the end, when one failed.
            SystemExit: when it was asked to stop.
        """
        planned = self.plan(combinations(self.parse(words)))
        done = len(planned) - len(self.rest(planned))
        say(f"sweep        {len(planned)} runs, {done} of them done, into {self.folder}")
        with self.running():
            self.launch(planned)


def combinations(overrides: Sequence[Override]) -> list[list[str]]:
    """Return the overrides of each run, the last key the quickest to change.

    Raises:
        InputError: for values that cannot be listed.
    """
    values: dict[str, list[str]] = {}
    for override in overrides:
        key = override.get_key_element()
        if not override.is_sweep_override():
            values[key] = [str(override.input_line)]
        elif override.is_discrete_sweep():
            values[key] = [f"{key}={value}" for value in override.sweep_string_iterator()]
        else:
            raise InputError(
                f"{override.input_line} has no values that could all be tried; list them, or choose "
                "hydra/sweeper=optuna"
            )
    return [list(chosen) for chosen in product(*values.values())]
