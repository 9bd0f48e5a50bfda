"""Where Optuna keeps what was tried, reachable from every process of a sweep."""

from importlib.util import find_spec
from typing import TYPE_CHECKING

from gan_lab.errors import InputError

if TYPE_CHECKING:
    from optuna import Trial
    from optuna.pruners import BasePruner
    from optuna.storages import BaseStorage


def check_installed() -> None:
    """Refuse to go on without Optuna.

    Raises:
        InputError: saying how to install it.
    """
    if find_spec("optuna") is None:
        raise InputError("hydra/sweeper=optuna needs optuna; pip install 'gan_lab[sweeps]'")


def open_storage(place: str) -> "BaseStorage":
    """Open a study's storage: a journal file, or a database.

    Args:
        place: a path, made when it is not there; or a URL such as sqlite:///study.db.

    Raises:
        InputError: when it cannot be opened.
    """
    check_installed()
    from optuna.storages import JournalStorage, get_storage
    from optuna.storages.journal import JournalFileBackend

    try:
        if "://" in place:
            return get_storage(place)
        return JournalStorage(JournalFileBackend(place))
    except Exception as error:  # each database has errors of its own
        raise InputError(
            f"hydra.sweeper.storage={place} cannot be opened ({type(error).__name__}: {error}); give a path, or a URL "
            "such as sqlite:///study.db"
        ) from error


def open_trial(*, storage: str, study: str, trial: int, pruner: "BasePruner | None") -> "Trial":
    """Return a trial that runs, to report to it and to ask whether it is worth going on with.

    Args:
        storage: as `open_storage` takes it.
        study: name of the study.
        trial: number of the trial.
        pruner: what judges; None for Optuna's default.

    Raises:
        InputError: when there is no such trial.
    """
    opened = open_storage(storage)
    from optuna import Trial, load_study

    try:
        found = load_study(study_name=study, storage=opened, pruner=pruner)
    except KeyError as error:
        raise InputError(f"there is no study {study} in {storage}") from error
    for frozen in found.get_trials(deepcopy=False):
        if frozen.number == trial:
            return Trial(found, frozen._trial_id)
    raise InputError(f"there is no trial {trial} in the study {study} of {storage}")
