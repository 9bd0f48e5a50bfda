"""gan-lab train: from a configuration to a trained, measured, resumable run."""

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout
from lightning import Trainer, seed_everything
from omegaconf import DictConfig, OmegaConf, open_dict

from gan_lab.callbacks.agreement import SameEverywhere
from gan_lab.callbacks.checkpointing import Checkpointing
from gan_lab.callbacks.evaluation import Evaluation
from gan_lab.callbacks.progress import ProgressBar
from gan_lab.callbacks.report import NonFiniteError
from gan_lab.checkpoint import CONFIG_FILE, AtomicCheckpointIO, find_resumable, read, read_config
from gan_lab.commands.processes import devices_here, processes, run_on, started_by_others
from gan_lab.config import build, conf_dir, differences
from gan_lab.console import say, warn
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.data.sampler import check_batch
from gan_lab.errors import InputError
from gan_lab.layers.ranks import is_first
from gan_lab.loggers import JsonLines
from gan_lab.models.adversarial import AdversarialModule
from gan_lab.seeding import check_seed
from gan_lab.strategy import HalfPrecision
from gan_lab.transfer import transfer

PRECISIONS = ("32", "32-true", "bf16-mixed", "16-mixed")


def run(config: DictConfig) -> None:
    """Train, or go on training, the run that the configuration names, in a process for each device.

    Raises:
        InputError: for what cannot be trained, before anything expensive.
    """
    quiet()
    check_numbers(config)
    check_name(config.name)
    check_trainer(config.trainer)
    devices = devices_here(config.trainer)
    check_batch(
        batch_size=config.batch_size,
        batches=config.d_steps,
        world_size=devices * config.trainer.get("num_nodes", 1),
    )
    if devices > 1 and not started_by_others():
        # what is wrong with the data shows once, and all processes get the same configuration
        describe_images(config, build_data(config))
        run_on(devices, resolved(config))
    else:
        train(config)


def train(config: DictConfig) -> None:
    """Train in this process, which may be one of several.

    Raises:
        InputError: as `run`.
    """
    quiet()
    run_dir = Path(config.run_dir)
    if config.threads:
        torch.set_num_threads(config.threads)
    checkpoint = find_resumable(run_dir / "checkpoints")
    check_same_model(run_dir, config)
    data = build_data(config)
    describe_images(config, data)
    seed_everything(config.seed, verbose=False)
    module = build_model(config)
    callbacks = build_callbacks(config)
    trainer = build_trainer(config, callbacks)
    say(data.describe())
    report_start(run_dir, config, module)
    if checkpoint is not None and not goes_on(run_dir, config, checkpoint, module):
        return
    if config.init_from and checkpoint is None:
        transfer(module, Path(config.init_from))
    run_dir.mkdir(parents=True, exist_ok=True)
    with locked(run_dir) if is_first() else nullcontext():
        if is_first():
            write_config(run_dir, config)
        fit(config, trainer, module, data, checkpoint)
    report_end(run_dir, module, callbacks)
    checkpointing = callbacks.get("checkpointing")
    if isinstance(checkpointing, Checkpointing) and checkpointing.stopped_by is not None:
        # what a shell expects of a program that a signal ended, so that `train && evaluate` stops
        raise SystemExit(128 + checkpointing.stopped_by)


def fit(
    config: DictConfig,
    trainer: Trainer,
    module: AdversarialModule,
    data: ImageDataModule,
    checkpoint: Path | None,
) -> None:
    """Train to the end, or to a signal.

    Raises:
        InputError: when training diverges.
    """
    settings = OmegaConf.to_container(resolved(config))
    assert isinstance(settings, dict)
    for logger in trainer.loggers:
        logger.log_hyperparams({str(key): value for key, value in settings.items()})
    try:
        trainer.fit(module, datamodule=data, ckpt_path=checkpoint)
    except NonFiniteError as error:
        raise InputError(str(error)) from error


@contextmanager
def locked(run_dir: Path) -> Iterator[None]:
    """Keep a second process out of a run folder; the lock goes with the process that holds it.

    Raises:
        InputError: when another process holds it.
    """
    lock = FileLock(run_dir / ".lock", blocking=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(
            f"another process is training in {run_dir}; wait for it, or choose another name="
        ) from error
    try:
        yield
    finally:
        lock.release()


def check_numbers(config: DictConfig) -> None:
    """Refuse words where numbers belong.

    Raises:
        InputError: naming the key.
    """
    for key in ("batch_size", "d_steps", "seed"):
        if not isinstance(config[key], int):
            raise InputError(f"{key}={config[key]} must be a whole number")
    if not isinstance(config.total_kimg, int | float):
        raise InputError(f"total_kimg={config.total_kimg} must be a number")
    check_seed(config.seed)


def check_name(name: str | None) -> None:
    """Refuse a name that is no folder in `runs_dir`.

    Raises:
        InputError: for an empty one, and for one that leads elsewhere.
    """
    if not name or Path(name).is_absolute() or not {".", ".."}.isdisjoint(Path(name).parts):
        raise InputError(f"name={name} must name a folder in runs_dir=, such as name=faces")


def quiet() -> None:
    """Drop what Lightning says about things that are as they should be here."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    # the moving average is in evaluation mode, and batches are fetched by the main process when data are in memory
    for message in (
        ".*in eval mode at the start of training.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
    ):
        warnings.filterwarnings("ignore", message)


def build_data(config: DictConfig) -> ImageDataModule:
    """Open the data; all that is wrong with them shows here."""
    return ImageDataModule(
        dataset=build(config.data),
        batch_size=config.batch_size,
        d_steps=config.d_steps,
        total_images=total_images(config),
        seed=config.seed,
        num_workers=config.num_workers,
    )


def total_images(config: DictConfig) -> int:
    """Return the length of training in images."""
    return round(config.total_kimg * 1000)


def describe_images(config: DictConfig, data: ImageDataModule) -> None:
    """Write what the data are like to `config.images`, from which networks take their sizes.

    Raises:
        InputError: when a conditional run has one class.
    """
    conditional = data.num_classes > 1 if config.conditional is None else config.conditional
    if conditional and data.num_classes < 2:
        raise InputError(
            "conditional=true, but the data have one class; give them classes (a sub-folder each, labels in "
            "dataset.json) or set conditional=false"
        )
    config.images = {
        "size": list(data.image_size),
        "channels": data.channels,
        "num_classes": data.num_classes if conditional else 0,
        "class_names": list(data.train.class_names),
        "class_counts": [int(count) for count in data.class_counts],
    }


def build_model(config: DictConfig) -> AdversarialModule:
    """Build networks and loop."""
    drop_unchosen(config)
    return build(config.model, total_images=total_images(config))


def drop_unchosen(config: DictConfig) -> None:
    """Drop what is set of regularizers and augmentations that the command line did not choose, and say so."""
    chosen = set()
    # one schedule may refer to another, which may be left out
    OmegaConf.resolve(config.model.schedules)
    with open_dict(config):
        for group in ("regularizer", "augment"):
            for name in [n for n, node in config[group].items() if "_target_" not in node]:
                say(f"{group}.{name} is set but not chosen: left out")
                del config[group][name]
            chosen |= set(config[group])
        for name in [n for n in config.model.schedules if n not in chosen]:
            if any((conf_dir() / g / f"{name}.yaml").exists() for g in ("regularizer", "augment")):
                say(f"model.schedules.{name} is set but {name} is not chosen: left out")
                del config.model.schedules[name]


def build_callbacks(config: DictConfig) -> dict[str, object]:
    """Build callbacks in the order of the configuration, each with the ones that it looks at."""
    nodes = config.callbacks
    callbacks = {
        name: build(node)
        for name, node in nodes.items()
        if name not in ("evaluation", "checkpointing")
    }
    if "evaluation" in nodes:
        callbacks["evaluation"] = build(nodes.evaluation, metrics=build(config.metrics))
    if "checkpointing" in nodes:
        callbacks["checkpointing"] = build(
            nodes.checkpointing, evaluation=callbacks.get("evaluation")
        )
    if "report" in callbacks:
        callbacks["progress"] = ProgressBar(report=callbacks["report"])
    return callbacks


def build_trainer(config: DictConfig, callbacks: dict[str, object]) -> Trainer:
    """Build the Trainer. It counts nothing: the loader ends when all images were shown."""
    loggers = [JsonLines(run_dir=config.run_dir), *(build(node) for node in config.logger.values())]
    same = SameEverywhere(config=resolved(config))
    return build(
        config.trainer,
        **processes(),
        **precision_plugins(config.trainer),
        max_epochs=1,
        logger=loggers,
        callbacks=[same, *callbacks.values()],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=config.run_dir,
    )


def precision_plugins(node: DictConfig) -> dict[str, Any]:
    """Return the Trainer's plugins, and for float16 its precision, which one of them has."""
    plugins: list[Any] = [AtomicCheckpointIO()]
    if str(node.get("precision")) != "16-mixed":
        return {"plugins": plugins}
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    device = "cpu" if accelerator is None or node.get("accelerator") == "cpu" else accelerator.type
    return {"plugins": [*plugins, HalfPrecision(device=device)], "precision": None}


def check_trainer(node: DictConfig) -> None:
    """Refuse what the loop cannot do.

    Raises:
        InputError: for a strategy of one's own, a missing accelerator and an unknown precision.
    """
    if node.get("strategy") is not None:
        raise InputError(
            f"trainer.strategy={node.strategy}: there is one way to use several devices here, by trainer.devices= and "
            "trainer.num_nodes=; leave the strategy out"
        )
    if node.get("accelerator") in ("gpu", "cuda", "mps") and not torch.accelerator.is_available():
        raise InputError(
            f"trainer.accelerator={node.accelerator}: there is none here; use trainer=auto or trainer=cpu"
        )
    precision = str(node.get("precision", "32-true"))
    if precision not in PRECISIONS:
        raise InputError(
            f"trainer.precision={precision} is none of {', '.join(PRECISIONS)}; bf16-mixed needs no scaling of losses, "
            "16-mixed suits devices without bfloat16"
        )


def check_same_model(run_dir: Path, config: DictConfig) -> None:
    """Refuse to continue another model's run.

    Raises:
        InputError: naming both.
    """
    if not (run_dir / CONFIG_FILE).exists():
        return
    before, now = read_config(run_dir).model._target_, config.model._target_
    if before != now:
        raise InputError(
            f"{run_dir} holds a run of {before}, not of {now}; choose another name= or delete the folder"
        )


def write_config(run_dir: Path, config: DictConfig) -> None:
    """Save the resolved configuration; evaluate and generate need nothing else."""
    temporary = run_dir / f"{CONFIG_FILE}.tmp"
    OmegaConf.save(resolved(config), temporary)
    os.replace(temporary, run_dir / CONFIG_FILE)


def resolved(config: DictConfig) -> DictConfig:
    """Return the configuration with all interpolations replaced by their values."""
    made = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
    assert isinstance(made, DictConfig)
    return made


def report_start(run_dir: Path, config: DictConfig, module: AdversarialModule) -> None:
    """Say what is trained and where."""
    count = {
        player: sum(p.numel() for p in getattr(module, player).parameters())
        for player in ("generator", "discriminator")
    }
    say(
        f"{type(module).__name__}: generator {count['generator']:,}, discriminator {count['discriminator']:,} "
        f"parameters; {config.total_kimg:g} kimg into {run_dir}"
    )


def goes_on(run_dir: Path, config: DictConfig, checkpoint: Path, module: AdversarialModule) -> bool:
    """Say from where the run goes on and what has changed since; False when there is nothing left to do.

    Raises:
        InputError: when the checkpoint does not fit the configuration; nothing has been written then.
    """
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
    say(f"going on from {checkpoint} at {kimg:g} kimg")
    for line in changes:
        warn(f"changed since: {line}")
    return True


def misfitting(state: dict[str, Any], module: AdversarialModule) -> list[str]:
    """Return what of a checkpoint cannot be loaded into a module: tensors, and optimizers of another kind."""
    theirs, ours = state["state_dict"], module.state_dict()
    wrong = [f"{name} is missing" for name in ours if name not in theirs]
    wrong += [f"{name} is not known" for name in theirs if name not in ours]
    wrong += [
        f"{name} has shape {tuple(theirs[name].shape)}, not {tuple(value.shape)}"
        for name, value in ours.items()
        if name in theirs and theirs[name].shape != value.shape
    ]
    for saved, optimizer in zip(
        state["optimizer_states"], module.configure_optimizers(), strict=True
    ):
        before, now = saved["param_groups"], optimizer.state_dict()["param_groups"]
        for old, new in zip(before, now, strict=True):
            if set(old) != set(new) or len(old["params"]) != len(new["params"]):
                wrong.append(
                    f"its optimizer is not {type(optimizer).__name__} of as many parameters"
                )
    return wrong


def report_end(run_dir: Path, module: AdversarialModule, callbacks: dict[str, object]) -> None:
    """Say what came out and where it is."""
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
    say(f"figures      {run_dir / 'metrics.jsonl'}")
