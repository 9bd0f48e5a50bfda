"""gan-lab train: train a run, or resume it."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from lightning import Trainer, seed_everything
from omegaconf import DictConfig

from gan_lab.commands.dry_run import dry_run
from gan_lab.config import differences, resolved, take, to_containers
from gan_lab.console import is_first, say, warn
from gan_lab.data.datamodule import DataModule, check_batch, loader_failure
from gan_lab.distributed.processes import run_on, started_by_others, world_size
from gan_lab.distributed.ranks import lost_rank
from gan_lab.errors import InputError
from gan_lab.run import locked, remove_leftovers
from gan_lab.training.auto import decide_by_data
from gan_lab.training.building import (
    backend_of,
    build_callbacks,
    build_data,
    build_model,
    build_trainer,
    compiled,
    quiet,
    sample_spec,
)
from gan_lab.training.callbacks.checkpointing import Checkpointing
from gan_lab.training.callbacks.evaluation import Evaluation
from gan_lab.training.callbacks.training_log import NonFiniteError
from gan_lab.training.checkpoint import (
    CONFIG_FILE,
    find_resumable,
    read,
    read_config,
    what_is_saved,
    write_config,
)
from gan_lab.training.checks import check_batch_per_process, check_trainer
from gan_lab.training.module import AdversarialModule
from gan_lab.training.state_dicts import transfer
from gan_lab.weights.loading import open_origin


def run(config: DictConfig) -> None:
    """Train or resume the configured run, with one process per device.

    Raises:
        InputError: for an invalid config, before anything expensive.
    """
    quiet()
    check_trainer(config.trainer)
    backend_of(config.compile)
    begun = Path(config.run_dir)
    decide_by_data(config, read_config(begun) if (begun / CONFIG_FILE).exists() else None)
    world = world_size(config.trainer)
    check_batch(batch_size=config.batch_size, batches=config.d_steps, world_size=world)
    if world > 1 and not started_by_others():
        # report errors in the data once, and give all processes the same configuration
        sample_spec(config, build_data(config))
        run_on(world, resolved(config), train)
    else:
        train(config)


def train(config: DictConfig) -> None:
    """Train in this process, possibly one of several.

    Raises:
        InputError: as `run`.
    """
    quiet()
    run_dir = Path(config.run_dir)
    if config.threads:
        torch.set_num_threads(config.threads)
    check_same_model(run_dir, config)
    if config.dry_run:
        dry_run(config)
        return
    with locked(run_dir) if is_first() else nullcontext():
        if is_first():
            remove_leftovers(run_dir, *(run_dir / part for part in ("checkpoints", "samples")))
        train_locked(config, run_dir)


def train_locked(config: DictConfig, run_dir: Path) -> None:
    """Train in a run folder that this process has locked.

    Raises:
        InputError: as `run`.
        SystemExit: after a signal.
    """
    checkpoint = find_resumable(run_dir / "checkpoints")
    origin = open_origin(config.init_from) if config.init_from and checkpoint is None else None
    data = build_data(config)
    spec = sample_spec(config, data)
    config.data_fingerprint = data.train.content_digest()
    seed_everything(config.seed, verbose=False)
    module = build_model(config, spec)
    module.discriminator.prepare()
    sync_batchnorm = bool(config.trainer.get("sync_batchnorm"))
    check_batch_per_process(module, world_size(config.trainer), sync_batchnorm=sync_batchnorm)
    callbacks = build_callbacks(config)
    trainer = build_trainer(config, callbacks)
    compiled(config, module, trainer.strategy.root_device)
    say(data.describe())
    report_start(run_dir, config, module)
    if checkpoint is not None and not report_resume(run_dir, config, checkpoint, module):
        return
    if origin is not None:
        transfer(module, origin)
    if is_first():
        write_config(run_dir, resolved(config))
    fit(config, trainer, module, data, checkpoint)
    report_end(run_dir, module, callbacks)
    checkpointing = callbacks.get("checkpointing")
    if isinstance(checkpointing, Checkpointing) and checkpointing.exit_status:
        trainer.strategy.barrier()  # the first process that exits with this status stops the others
        raise SystemExit(checkpointing.exit_status)


def fit(
    config: DictConfig,
    trainer: Trainer,
    module: AdversarialModule,
    data: DataModule,
    checkpoint: Path | None,
) -> None:
    """Train to the end, or until a signal.

    Raises:
        InputError: when training diverges, and when a loader's worker dies.
        SystemExit: after a second signal.
    """
    settings = to_containers(config)
    for logger in trainer.loggers:
        logger.log_hyperparams({str(key): value for key, value in settings.items()})
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except NonFiniteError as error:
        saved = what_is_saved(Path(config.run_dir) / "checkpoints")
        raise InputError(f"{error}. {saved}") from error
    except SystemExit as end:
        if not isinstance(end.__context__, KeyboardInterrupt):
            raise
        # Lightning's own status after a Ctrl-C is 1
        raise SystemExit(getattr(end.__context__, "status", 130)) from None
    except (RuntimeError, InputError, EOFError, ConnectionError) as error:
        reason = loader_failure(error) or lost_rank(error)
        if reason is None:
            raise
        saved = what_is_saved(Path(config.run_dir) / "checkpoints")
        raise InputError(f"{reason}. {saved}") from error


def check_same_model(run_dir: Path, config: DictConfig) -> None:
    """Check that the run is of this model; a run without a first step does not count.

    Raises:
        InputError: naming both.
    """
    begun = (run_dir / "metrics.jsonl").exists() or (run_dir / "checkpoints").exists()
    if not (run_dir / CONFIG_FILE).exists() or not begun:
        return
    file = run_dir / CONFIG_FILE
    before = take(read_config(run_dir), "model._target_", str, origin=file)
    now = config.model._target_
    if before != now:
        raise InputError(
            f"{run_dir} holds a run of {before}, not of {now}; choose another name= or delete the folder"
        )


def check_same_data(run_dir: Path, config: DictConfig) -> None:
    """Check that the run was trained on these data.

    Raises:
        InputError: with what to set.
    """
    before = read_config(run_dir).get("data_fingerprint")
    if before != config.data_fingerprint and not config.new_data:
        raise InputError(
            f"{run_dir} was trained on other data (data_fingerprint {before}, these have {config.data_fingerprint}); "
            "choose another name=, or set new_data=true to go on with these"
        )


def report_start(run_dir: Path, config: DictConfig, module: AdversarialModule) -> None:
    """Print what is trained, and where to."""
    count = {
        player: sum(p.numel() for p in getattr(module, player).parameters())
        for player in ("generator", "discriminator")
    }
    say(
        f"{type(module).__name__}: generator {count['generator']:,}, discriminator {count['discriminator']:,} "
        f"parameters; {config.total_kimg:g} kimg into {run_dir}"
    )


def report_resume(
    run_dir: Path, config: DictConfig, checkpoint: Path, module: AdversarialModule
) -> bool:
    """Print where the run resumes and what changed; False when it is finished.

    Raises:
        InputError: when the checkpoint does not match the config, before anything is written.
    """
    check_same_data(run_dir, config)
    changes = differences(read_config(run_dir), resolved(config))
    state = read(checkpoint)
    misfits = misfitting(state, module)
    if misfits:
        raise InputError(
            f"{checkpoint} does not fit this configuration ({misfits[0]}; {len(misfits)} such). Changed since: "
            f"{'; '.join(changes) or 'nothing'}. Change it back, choose another name=, or begin from its weights "
            f"with init_from={run_dir} name=..."
        )
    kimg = state["clock"]["images_seen"] / 1000
    if kimg * 1000 >= module.total_images:
        say(f"{run_dir} is trained: it has seen {kimg:g} kimg; set total_kimg= above that to go on")
        return False
    say(f"resuming from {checkpoint} at {kimg:g} kimg")
    for line in changes:
        warn(f"changed since: {line}")
    return True


def misfitting(state: dict[str, Any], module: AdversarialModule) -> list[str]:
    """Return the tensors and optimizers of a checkpoint that do not match a module."""
    theirs, ours = state["state_dict"], module.state_dict()
    wrong = [f"{name} is missing" for name in ours if name not in theirs]
    wrong += [f"{name} is not known" for name in theirs if name not in ours]
    wrong += [
        f"{name} has shape {tuple(theirs[name].shape)}, not {tuple(value.shape)}"
        for name, value in ours.items()
        if name in theirs and theirs[name].shape != value.shape
    ]
    optimizers = list(module.configure_optimizers())
    try:
        groups = [saved["param_groups"] for saved in state["optimizer_states"]]
        players = [state["clock"]["players"][name] for name in module.players]
        has_all = len(groups) == len(players) == len(optimizers) and "stats" in state["clock"]
    except (
        LookupError,
        TypeError,
    ):  # samples can be drawn from it, which is all that `read` checks
        has_all = False
    if not has_all:
        return [*wrong, "it lacks the state of optimizers and averages"]
    for before, optimizer in zip(groups, optimizers, strict=True):
        now = optimizer.state_dict()["param_groups"]
        same = len(before) == len(now) and all(
            set(old) == set(new) and len(old["params"]) == len(new["params"])
            for old, new in zip(before, now, strict=True)
        )
        if not same:
            wrong.append(
                f"its optimizer is not {type(optimizer).__name__} of the same number of parameters"
            )
    return wrong


def report_end(run_dir: Path, module: AdversarialModule, callbacks: dict[str, object]) -> None:
    """Print the results and their paths."""
    say(f"{module.kimg:g} kimg shown")
    grids = sorted((run_dir / "samples").glob("kimg*.png"))
    if grids:
        say(f"samples      {grids[-1]}")
    checkpointing = callbacks.get("checkpointing")
    if isinstance(checkpointing, Checkpointing):
        say(f"checkpoint   {run_dir / 'checkpoints' / 'last.ckpt'}")
        if checkpointing.best_value is not None:
            evaluation = callbacks["evaluation"]
            assert isinstance(evaluation, Evaluation) and evaluation.best is not None
            say(
                f"best         {run_dir / 'checkpoints' / 'best.ckpt'}: {evaluation.best[0]} "
                f"{checkpointing.best_value:.4g} at {checkpointing.best_kimg:g} kimg"
            )
    say(f"metrics      {run_dir / 'metrics.jsonl'}")
