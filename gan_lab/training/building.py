"""Build data, model, callbacks and Trainer from a composed config; torch.compile."""

import logging
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from inspect import signature
from typing import Any

import torch
from hydra.utils import get_object
from lightning import Callback, Trainer
from lightning.pytorch.plugins import CheckpointIO
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import Tensor, nn

from gan_lab.config import build, conf_dir, literal, resolved
from gan_lab.console import say
from gan_lab.data.base import SampleDataset
from gan_lab.data.datamodule import DataModule
from gan_lab.data.sample import Representation, SampleSpec
from gan_lab.distributed.processes import environment, processes
from gan_lab.distributed.ranks import Float16Precision, SyncBatchNorm
from gan_lab.errors import InputError
from gan_lab.layers.networks import (
    DiscriminatorInput,
    DiscriminatorNetwork,
    DiscriminatorOutput,
    GeneratorNetwork,
    Role,
    tensors_of,
)
from gan_lab.layers.precision import keep_ends_in_float32
from gan_lab.layers.resolutions import grows
from gan_lab.metrics.base import Metrics
from gan_lab.training.callbacks.training_log import ProgressBar
from gan_lab.training.checkpoint import AtomicCheckpointIO
from gan_lab.training.checks import CheckSameConfig
from gan_lab.training.loggers import RunLogger
from gan_lab.training.loggers.files import JsonLogger
from gan_lab.training.module import AdversarialModule
from gan_lab.training.player import OptimizerFactory

# torch.compile, for the passes that are not differentiated twice.
#
# Compiled code has no second derivatives (https://github.com/pytorch/pytorch/issues/91469), which gradient penalties
# need. So each call of D decides: where both samples and weights require gradients, it runs uncompiled. Everything
# else runs compiled: fake samples for D, D's losses in a step without such a penalty, and G's whole step, in which D
# is frozen.

INDUCTOR = "inductor"


def backend_of(choice: object) -> str | None:
    """Return the torch.compile backend of `compile=`, or None.

    Raises:
        InputError: for an unknown backend.
    """
    if choice is None or choice is False:
        return None
    if choice is True:
        return INDUCTOR
    known = torch.compiler.list_backends(exclude_tags=())
    if choice not in known:
        raise InputError(f"compile={choice} must be true, false or one of {', '.join(known)}")
    return str(choice)


def compile_passes(module: AdversarialModule, backend: str, device: torch.device) -> None:
    """Compile a module's hooks `fake` and, where it has an encoder, `real`, and its network's `discriminate`.

    Modules, parameters, state dicts and random numbers are the same as without compiling.

    Args:
        module: to change in place.
        backend: of torch.compile.
        device: for the computation.

    Raises:
        InputError: when it cannot be compiled, with the reason.
    """
    if grows(module):
        raise InputError(
            f"compile: {type(module).__name__}'s networks grow, and each step of a fade-in would be compiled again; "
            "set compile=false, or growing=false in model.generator and model.discriminator"
        )
    check_compiler(backend, device)
    for hook in ("fake", "real") if module.has_encoder else ("fake",):
        setattr(module, hook, compile_function(getattr(module, hook), backend))
    discriminator: Any = module.discriminator
    discriminator.discriminate = compiled_once(discriminator.discriminate, discriminator, backend)


def compile_function(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Compile a function at its first call."""
    return torch.compile(function, backend=backend, dynamic=False, **options(backend))


def compiled_once(
    discriminate: Callable[..., DiscriminatorOutput], network: nn.Module, backend: str
) -> Callable[..., DiscriminatorOutput]:
    """Return a network's `discriminate`, compiled unless it will be differentiated twice."""
    fast = compile_function(discriminate, backend)

    def call(
        x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        by_input = any(part.requires_grad for part in tensors_of(x))
        twice = by_input and any(p.requires_grad for p in network.parameters())
        return (discriminate if twice and torch.is_grad_enabled() else fast)(x, labels, role)

    return call


def options(backend: str, **more: object) -> dict[str, Any]:
    """Return torch.compile's options, which only inductor has."""
    # otherwise inductor's random numbers differ from torch's
    return {"options": {"fallback_random": True, **more}} if backend == INDUCTOR else {}


def check_compiler(backend: str, device: torch.device) -> None:
    """Compile a small function to check that the compiler works.

    Raises:
        InputError: with what is missing.
    """
    trial = options(backend, force_disable_caches=True)
    compiled: Any = torch.compile(wave, backend=backend, **trial)
    try:
        compiled(torch.ones(8, device=device))
    except Exception as error:  # compilers may raise anything
        reason = next((line for line in str(error).splitlines() if line.strip()), repr(error))
        need = "a C++ compiler (g++)" if device.type == "cpu" else "Triton and a C compiler"
        raise InputError(
            f"compile: {backend} does not work here ({reason.strip()}); it needs {need}; install that, or set "
            "compile=false"
        ) from error


def wave(x: Tensor) -> Tensor:
    """A small function to test the compiler with."""
    return x.sin() + x.cos()


def differentiated_twice(module: AdversarialModule) -> list[str]:
    """Return the penalties that differentiate D's passes in every step, which are then not compiled."""
    return [
        name
        for name, penalty in module.players["discriminator"].penalties().items()
        if penalty.differentiates_real or penalty.differentiates_fake
    ]


# Data, model, callbacks, Trainer


def build_data(config: DictConfig) -> DataModule:
    """Open and check the data."""
    return DataModule(
        dataset=build(config.data, Callable[..., SampleDataset]),
        batch_size=config.batch_size,
        d_steps=config.d_steps,
        total_images=total_images(config),
        seed=config.seed,
        num_workers=config.num_workers,
        representation=build(config.representation, Representation | None),
    )


def total_images(config: DictConfig) -> int:
    """Return the length of training in images."""
    return round(config.total_kimg * 1000)


def describe_samples(config: DictConfig, spec: SampleSpec) -> None:
    """Write the sample spec to `config.sample`, and the networks' arguments that follow from it.

    A network's constructor gets those of `SampleSpec.network_arguments` that it has parameters for; explicit values
    are kept.

    Args:
        config: of a training command.
        spec: of the samples, with labels if the run is conditional.

    Raises:
        InputError: when a network's class cannot be imported, or needs images and the samples are none.
    """
    derived = spec.network_arguments()
    with open_dict(config):
        if config.get("discriminator"):
            # another network: drop the arguments
            config.model.discriminator = config.discriminator
        config.sample = literal(spec.as_dict())
        for name, node in config.model.items():
            if not OmegaConf.is_dict(node) or "_target_" not in node:
                continue
            network = get_object(node._target_)
            if not (
                isinstance(network, type)
                and issubclass(network, GeneratorNetwork | DiscriminatorNetwork)
            ):
                continue
            parameters = signature(network).parameters
            if "image_size" in parameters and "image_size" not in {*derived, *node}:
                raise InputError(
                    f"{network.__module__} needs images, but networks see {spec.kind.name} as "
                    f"{list(spec.encoded_shape)}; choose another model="
                )
            for key, value in derived.items():
                if key in parameters and key not in node:
                    config.model[name][key] = list(value) if isinstance(value, tuple) else value


def sample_spec(config: DictConfig, data: DataModule) -> SampleSpec:
    """Return the spec of a run's samples: with labels if `conditional`, or by default with two classes or more.

    Raises:
        InputError: when a conditional run has neither classes nor attributes.
    """
    spec = data.spec
    varied = spec.num_classes > 1 or bool(spec.attributes)
    conditional = varied if config.conditional is None else config.conditional
    if conditional and not varied:
        raise InputError(
            "conditional=true, but the data have one class; give them classes (a sub-folder each, labels in "
            "dataset.json) or set conditional=false"
        )
    return spec if conditional else spec.without_labels()


def build_model(config: DictConfig, spec: SampleSpec) -> AdversarialModule:
    """Build networks and loop for the described samples, and write derived values to the config.

    Raises:
        InputError: when one of them cannot be built.
    """
    describe_samples(config, spec)
    drop_unchosen(config)
    check_optimizers(config.model)
    module: AdversarialModule = build(
        config.model, AdversarialModule, total_images=total_images(config)
    )
    module.representation = (
        spec.representation
    )  # as a submodule, its statistics are saved in checkpoints
    for augmentation in module.augmentations.values():
        augmentation.check(spec)  # type: ignore[operator]
    for player in module.players.values():
        for regularizer in player.regularizers.values():
            regularizer.check_samples(spec)
    if module.generator.translates and spec.source is None:
        raise InputError(
            f"{type(module.generator).__name__} translates samples, and the data have no sources; choose paired data"
        )
    check_network("generator", module.generator, GeneratorNetwork, ("z_dim", "num_classes"))
    check_network("discriminator", module.discriminator, DiscriminatorNetwork, ("num_classes",))
    if spec.kind.is_precise and "mixed" in str(config.trainer.precision):
        keep_ends_in_float32(module.generator, module.discriminator, spec.encoded_shape)
    return module


def check_network(
    key: str, network: torch.nn.Module, base: type, attributes: Sequence[str]
) -> None:
    """Check that a network has the base class and attributes that the loop needs.

    Raises:
        InputError: naming what is missing.
    """
    name = type(network).__qualname__
    if not isinstance(network, base):
        raise InputError(
            f"model.{key}: {name} is not a {base.__module__}.{base.__name__}; derive it from that class"
        )
    for attribute in attributes:
        if attribute not in dir(network):
            raise InputError(
                f"model.{key}: {name} has no {attribute}; set self.{attribute} in its __init__"
            )


def check_optimizers(model: DictConfig) -> None:
    """Try to build the optimizers, which the Trainer would only do later.

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
    """Compile a model's passes if configured, and report which are not compiled.

    Raises:
        InputError: when that is impossible.
    """
    backend = backend_of(config.compile)
    if backend is None:
        return
    compile_passes(module, backend, device)
    # in mixed precision penalties have separate passes
    mixed = "mixed" in str(config.trainer.precision)
    twice = [] if mixed else differentiated_twice(module)
    kept = f"; D's own step stays as it is for {', '.join(twice)}" if twice else ""
    say(f"compile: passes through the networks by {backend}, at their first use{kept}")


def drop_unchosen(config: DictConfig) -> None:
    """Drop settings of regularizers and augmentations that are not in the config, with a message."""
    chosen = set()
    with open_dict(config):
        config.model.schedules = config.model.get("schedules") or {}
        # a schedule may refer to another one that is dropped
        OmegaConf.resolve(config.model.schedules)
        for group in ("regularizer", "augment"):
            for name in [n for n, node in config[group].items() if "_target_" not in node]:
                say(f"{group}.{name} is set but not chosen: ignored")
                del config[group][name]
            chosen |= set(config[group])
        for name in [n for n in config.model.schedules if n not in chosen]:
            if any((conf_dir() / g / f"{name}.yaml").exists() for g in ("regularizer", "augment")):
                say(f"model.schedules.{name} is set but {name} is not chosen: ignored")
                del config.model.schedules[name]


def build_callbacks(config: DictConfig) -> dict[str, object]:
    """Build callbacks in the order of the config, with the callbacks they depend on; null leaves one out."""
    nodes = {name: node for name, node in config.callbacks.items() if node is not None}
    callbacks = {
        name: build(node, Callback)
        for name, node in nodes.items()
        if name not in ("evaluation", "pruning", "checkpointing")
    }
    if "evaluation" in nodes:
        callbacks["evaluation"] = build(
            nodes["evaluation"], Callback, metrics=build(config.metrics, Metrics)
        )
    if "pruning" in nodes:
        callbacks["pruning"] = build(
            nodes["pruning"], Callback, evaluation=callbacks.get("evaluation")
        )
    if "checkpointing" in nodes:
        callbacks["checkpointing"] = build(
            nodes["checkpointing"], Callback, evaluation=callbacks.get("evaluation")
        )
    if "training_log" in callbacks:
        callbacks["progress"] = ProgressBar(training_log=callbacks["training_log"])
    return callbacks


def build_trainer(config: DictConfig, callbacks: dict[str, object]) -> Trainer:
    """Build the Trainer; the data loader, not the Trainer, ends the training."""
    loggers = [
        JsonLogger(run_dir=config.run_dir),
        *(build(node, RunLogger) for node in config.logger.values() if node is not None),
    ]
    same_config = CheckSameConfig(config=resolved(config))
    return bare_trainer(
        config,
        logger=loggers,
        callbacks=[same_config, *callbacks.values()],
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
    """Build a Trainer for one pass over the data, in one or several processes.

    Args:
        config: of the run.
        callbacks: all of them.
        logger: False for none.
        checkpoints: plugin for writing; None for that of `gan-lab train`.
        default_root_dir: Lightning's.
    """
    float16 = float16_precision(config.trainer)
    plugins = [checkpoints or AtomicCheckpointIO(), environment(), *float16]
    if config.trainer.get("sync_batchnorm"):
        plugins.append(SyncBatchNorm())
    precision: dict[str, Any] = {"precision": None} if float16 else {}  # the plugin has it
    return build(
        config.trainer,
        Trainer,
        **{"strategy": "auto", **processes(timedelta(minutes=config.rank_timeout)), **precision},
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


def float16_precision(node: DictConfig) -> list[Float16Precision]:
    """Return the precision plugin for float16, or nothing for other precisions."""
    if str(node.get("precision")) != "16-mixed":
        return []
    accelerator = torch.accelerator.current_accelerator(check_available=True)
    on_cpu = accelerator is None or node.get("accelerator") == "cpu"
    return [Float16Precision(device="cpu" if on_cpu or accelerator is None else accelerator.type)]


def quiet() -> None:
    """Silence Lightning warnings that do not apply."""
    for part in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(part).setLevel(logging.WARNING)
    # the moving average is in eval mode, and in-memory data need no workers
    for message in (
        ".*in eval mode at the start of training.*",
        ".*does not have many workers.*",
        ".*LeafSpec.*",
        # when SLURM is installed, outside of jobs
        ".*`srun` command is available.*",
    ):
        warnings.filterwarnings("ignore", message)
