"""From a composed configuration to what trains: data, model, callbacks, Trainer."""

import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from lightning import Callback, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins import CheckpointIO
from omegaconf import DictConfig, OmegaConf, open_dict

from gan_lab.config import build, conf_dir, literal, resolved
from gan_lab.console import say
from gan_lab.data.base import ImageDataset
from gan_lab.data.datamodule import ImageDataModule
from gan_lab.distributed.processes import environment, processes
from gan_lab.distributed.strategy import HalfPrecision, SharedStatistics
from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorNetwork, GeneratorNetwork
from gan_lab.metrics.base import Metrics
from gan_lab.training.callbacks.agreement import SameEverywhere
from gan_lab.training.callbacks.progress import ProgressBar
from gan_lab.training.checkpoint import AtomicCheckpointIO
from gan_lab.training.compilation import backend_of, compile_passes, differentiated_twice
from gan_lab.training.loggers.files import JsonLines
from gan_lab.training.module import AdversarialModule, OptimizerFactory


def build_data(config: DictConfig) -> ImageDataModule:
    """Open the data; all that is wrong with them shows here."""
    return ImageDataModule(
        dataset=build(config.data, Callable[..., ImageDataset]),
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
        "class_names": literal(data.train.class_names),
        "class_counts": [int(count) for count in data.class_counts],
    }


def build_model(config: DictConfig) -> AdversarialModule:
    """Build networks and loop.

    Raises:
        InputError: when one of them cannot be built.
    """
    drop_unchosen(config)
    check_optimizers(config.model)
    module: AdversarialModule = build(
        config.model, AdversarialModule, total_images=total_images(config)
    )
    check_network("generator", module.generator, GeneratorNetwork, ("z_dim", "num_classes"))
    check_network("discriminator", module.discriminator, DiscriminatorNetwork, ("num_classes",))
    return module


def check_network(
    key: str, network: torch.nn.Module, base: type, attributes: Sequence[str]
) -> None:
    """Refuse a network, of somebody's own architecture, that does not say of itself what the loop asks.

    Raises:
        InputError: naming what is missing.
    """
    name = type(network).__qualname__
    if not isinstance(network, base):
        raise InputError(
            f"model.{key}: {name} is no {base.__module__}.{base.__name__}; derive it from that, which says what "
            "the loop asks of it"
        )
    for attribute in attributes:
        if attribute not in dir(network):
            raise InputError(
                f"model.{key}: {name} has no {attribute}; set self.{attribute} in its __init__"
            )


def check_optimizers(model: DictConfig) -> None:
    """Try the settings of optimizers, which are built late, when the Trainer asks for them.

    Raises:
        InputError: naming the key.
    """
    for key in ("generator_optimizer", "discriminator_optimizer"):
        optimizer = build(model[key], OptimizerFactory)
        try:
            optimizer([torch.nn.Parameter(torch.zeros(1))])
        except (TypeError, ValueError) as error:
            raise InputError(f"model.{key} cannot be built with these settings: {error}") from error


def compiled(config: DictConfig, module: AdversarialModule, device: torch.device) -> None:
    """Compile a model's passes where the configuration says so, and say what stays as it is.

    Raises:
        InputError: when that cannot be.
    """
    backend = backend_of(config.compile)
    if backend is None:
        return
    compile_passes(module, backend, device)
    # in mixed precision penalties have passes of their own
    mixed = "mixed" in str(config.trainer.precision)
    twice = [] if mixed else differentiated_twice(module)
    kept = f"; D's own step stays as it is for {', '.join(twice)}" if twice else ""
    say(f"compile: passes through the networks by {backend}, at their first use{kept}")


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
        name: build(node, Callback)
        for name, node in nodes.items()
        if name not in ("evaluation", "pruning", "checkpointing")
    }
    if "evaluation" in nodes:
        callbacks["evaluation"] = build(
            nodes.evaluation, Callback, metrics=build(config.metrics, Metrics)
        )
    if "pruning" in nodes:
        callbacks["pruning"] = build(
            nodes.pruning, Callback, evaluation=callbacks.get("evaluation")
        )
    if "checkpointing" in nodes:
        callbacks["checkpointing"] = build(
            nodes.checkpointing, Callback, evaluation=callbacks.get("evaluation")
        )
    if "report" in callbacks:
        callbacks["progress"] = ProgressBar(report=callbacks["report"])
    return callbacks


def build_trainer(config: DictConfig, callbacks: dict[str, object]) -> Trainer:
    """Build the Trainer. It counts nothing: the loader ends when all images were shown."""
    loggers = [
        JsonLines(run_dir=config.run_dir),
        *(build(node, Logger) for node in config.logger.values()),
    ]
    same = SameEverywhere(config=resolved(config))
    return bare_trainer(
        config,
        logger=loggers,
        callbacks=[same, *callbacks.values()],
        default_root_dir=config.run_dir,
    )


def bare_trainer(
    config: DictConfig,
    *,
    callbacks: Sequence[object],
    logger: object = False,
    checkpoints: CheckpointIO | None = None,
    default_root_dir: str | None = None,
) -> Trainer:
    """Build a Trainer of one pass over the data, for this process or all that it is one of.

    Args:
        config: of the run.
        callbacks: all that there are.
        logger: False for none.
        checkpoints: how they are written; None for the way of `gan-lab train`.
        default_root_dir: where Lightning looks for a place.
    """
    half = half_precision(config.trainer)
    plugins = [checkpoints or AtomicCheckpointIO(), environment(), *half]
    if config.trainer.get("sync_batchnorm"):
        plugins.append(SharedStatistics())
    precision: dict[str, Any] = {"precision": None} if half else {}  # the plugin has it
    return build(
        config.trainer,
        Trainer,
        **processes(),
        **precision,
        sync_batchnorm=False,
        plugins=plugins,
        max_epochs=1,
        logger=logger,
        callbacks=list(callbacks),
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
        default_root_dir=default_root_dir,
    )


def half_precision(node: DictConfig) -> list[HalfPrecision]:
    """Return the plugin of a Trainer that computes in float16, or nothing for any other."""
    if str(node.get("precision")) != "16-mixed":
        return []
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    on_cpu = accelerator is None or node.get("accelerator") == "cpu"
    return [HalfPrecision(device="cpu" if on_cpu or accelerator is None else accelerator.type)]


def quiet() -> None:
    """Drop what Lightning says about things that are as they should be here."""
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)
    # the moving average is in evaluation mode, and batches are fetched by the main process when data are in memory
    for message in (
        ".*in eval mode at the start of training.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        # on a machine with SLURM, outside of its jobs
        ".*`srun` command is available.*",
    ):
        warnings.filterwarnings("ignore", message)
