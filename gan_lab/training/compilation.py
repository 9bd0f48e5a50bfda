"""torch.compile for those passes through the networks that nothing differentiates twice.

Compiled code has no second derivatives (https://github.com/pytorch/pytorch/issues/91469), which penalties on gradients
need. So each call of D decides: where samples and weights both require gradients, a gradient by the first is going to
be differentiated by the second, and the call runs uncompiled. All others run compiled: fake samples for D, D's losses
in a step without such a penalty in it, and G's whole step, in which D is frozen.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from gan_lab.errors import InputError
from gan_lab.layers.networks import DiscriminatorInput, DiscriminatorOutput, Role, tensors_of
from gan_lab.layers.resolutions import grows
from gan_lab.training.module import AdversarialModule

INDUCTOR = "inductor"


def backend_of(choice: object) -> str | None:
    """Return the backend that `compile=` names, None for none.

    Raises:
        InputError: for a backend that there is not.
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

    Modules, parameters and state dicts stay as they are. Random numbers stay those of the same run without compiling.

    Args:
        module: to change in place.
        backend: of torch.compile.
        device: where it is going to compute.

    Raises:
        InputError: when it cannot be compiled, with the reason.
    """
    if grows(module):
        raise InputError(
            f"compile: {type(module).__name__}'s networks grow, and each step of a fade is another program; set "
            "compile=false, or growing=false in model.generator and model.discriminator"
        )
    check_compiler(backend, device)
    for hook in ("fake", "real") if module.has_encoder else ("fake",):
        setattr(module, hook, compiled(getattr(module, hook), backend))
    discriminator: Any = module.discriminator
    discriminator.discriminate = compiled_once(discriminator.discriminate, discriminator, backend)


def compiled(function: Callable[..., Any], backend: str) -> Callable[..., Any]:
    """Return a function that is compiled at its first call."""
    return torch.compile(function, backend=backend, dynamic=False, **options(backend))


def compiled_once(
    discriminate: Callable[..., DiscriminatorOutput], network: nn.Module, backend: str
) -> Callable[..., DiscriminatorOutput]:
    """Return a network's `discriminate`, compiled where it is not going to be differentiated twice."""
    fast = compiled(discriminate, backend)

    def call(
        x: DiscriminatorInput, labels: Tensor | None, role: Role | None
    ) -> DiscriminatorOutput:
        by_input = any(part.requires_grad for part in tensors_of(x))
        twice = by_input and any(p.requires_grad for p in network.parameters())
        return (discriminate if twice and torch.is_grad_enabled() else fast)(x, labels, role)

    return call


def options(backend: str, **more: object) -> dict[str, Any]:
    """Return torch.compile's options, which its own backend alone has."""
    # inductor otherwise draws other random numbers than torch does
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
    except Exception as error:  # of whatever kind the compiler's tools raise
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
    """Return the penalties of every step that share D's passes with its loss, which then are not compiled."""
    return [
        name
        for name, penalty in module.players["discriminator"].penalties().items()
        if penalty.differentiates_real or penalty.differentiates_fake
    ]
