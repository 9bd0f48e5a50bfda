"""torch.compile: the same numbers and checkpoints, and what is not compiled."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig
from torch import Tensor
from torch._dynamo.utils import counters

from gan_lab.commands.launch import launch
from gan_lab.errors import InputError
from gan_lab.training.building import (
    backend_of,
    build_model,
    check_compiler,
    compile_passes,
)
from gan_lab.training.module import AdversarialModule
from tests.commands.conftest import ELSE, TINY, Train
from tests.commands.conftest import train as train
from tests.helpers import small
from tests.helpers.samples import images_of
from tests.models.conftest import Make, fit
from tests.models.conftest import make as make

CPU = torch.device("cpu")
# traces and differentiates ahead of time as inductor does, and then runs torch's own kernels
AHEAD = "aot_eager"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Names of the functions that were called compiled, by a compiler that notes this and changes nothing."""
    called: list[str] = []

    def compiler(function: Callable[..., Any], **settings: Any) -> Callable[..., Any]:
        def run(*arguments: Any) -> Any:
            called.append(getattr(function, "__name__", "?"))
            return function(*arguments)

        return run

    monkeypatch.setattr(torch, "compile", compiler)
    yield called


def compiled(module: AdversarialModule) -> AdversarialModule:
    compile_passes(module, AHEAD, CPU)
    return module


def test_every_pass_is_compiled_where_nothing_is_differentiated_twice(
    make: Make, calls: list[str]
) -> None:
    fit(compiled(make("dcgan", steps=1)))
    # the trial; D's step: G, and D on both kinds of images; G's step: G and D
    assert calls[1:] == ["discriminate", "fake", "discriminate", "fake", "discriminate"]


@pytest.mark.parametrize("penalty", ["r1", "r2", "gradient_penalty", "dragan"])
def test_passes_that_a_penalty_differentiates_are_not(
    make: Make, calls: list[str], penalty: str
) -> None:
    fit(compiled(make("gan", f"regularizer=[{penalty}]", steps=1)))
    # of the two passes of D in its own step, R1 differentiates that of real samples and R2 that of fake ones
    ours = {"r1": ["fake", "discriminate"], "r2": ["discriminate", "fake"]}.get(
        penalty, ["discriminate", "fake", "discriminate"]
    )
    assert calls[1:] == [*ours, "fake", "discriminate"]


def test_a_lazy_penalty_leaves_the_other_steps_compiled(make: Make, calls: list[str]) -> None:
    overrides = ("regularizer=[r1_lazy]", "regularizer.r1.interval=2")
    fit(compiled(make("gan", *overrides, steps=2)))
    step = ["discriminate", "fake", "discriminate", "fake", "discriminate"]
    assert calls[1:] == [*step, *step], "of the first step, the penalty's own pass is as it was"


@pytest.mark.parametrize(
    ("first", "second"),
    [(AHEAD, "false"), pytest.param("false", AHEAD, marks=pytest.mark.slow)],
)
def test_compiled_and_as_it_is_are_the_same_run(train: Train, first: str, second: str) -> None:
    """Weights, keys and checkpoints, where one half is compiled and the other as it is."""
    overrides = ("regularizer=[r1,gradient_penalty]", "regularizer.r1.interval=3", "threads=1")
    overrides = (*overrides, "callbacks.samples.every_kimg=100")
    straight = train(*overrides, name="straight", base=ELSE)
    train(*overrides, f"compile={first}", "total_kimg=0.1", base=ELSE)
    run = train(*overrides, f"compile={second}", base=ELSE)
    ours, theirs = (
        torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (run, straight)
    )
    assert list(ours["state_dict"]) == list(theirs["state_dict"]), "no _orig_mod"
    for part in ("state_dict", "optimizer_states"):
        torch.testing.assert_close(ours[part], theirs[part], rtol=1e-5, atol=1e-7)


SMALL = {
    "gan": ("model.generator.width=8", "model.discriminator.width=4"),
    "gat": small.GAT,
    "r3gan": (
        "model.generator.widths=[8,8]",
        "model.generator.cardinalities=[2,2]",
        "model.generator.z_dim=8",
        "model.discriminator.label_dim=8",
    ),
}
APPROXIMATE = "regularizer=[approximate_r1,approximate_r2]"


def test_every_pass_of_a_step_with_approximate_penalties_is_compiled(
    make: Make, calls: list[str]
) -> None:
    fit(compiled(make("gan", APPROXIMATE, steps=1)))
    first, again = ["discriminate", "fake", "discriminate"], ["discriminate"] * 2
    assert calls[1:] == [*first, *again, "fake", "discriminate"]


SLOW = (pytest.mark.slow, pytest.mark.timeout(600))


@pytest.mark.parametrize(
    ("model", "precision", "precise"),
    [
        ("gan", "32-true", True),
        pytest.param("gat", "32-true", True, marks=SLOW),
        pytest.param("gat", "bf16-mixed", True, marks=SLOW),
        pytest.param("gat", "bf16-mixed", False, marks=SLOW),
        pytest.param("r3gan", "32-true", True, marks=SLOW),
    ],
)
def test_a_step_with_approximate_penalties_has_no_graph_breaks(
    compose: Callable[..., DictConfig], model: str, precision: Any, precise: bool
) -> None:
    """Nor passes that are left out of compiling, and the numbers are those of the step as it is."""
    overrides = [f"model={model}", "batch_size=4", "total_kimg=0.008", *SMALL[model], APPROXIMATE]
    overrides += [f"regularizer.approximate_r{i}.precise={precise}" for i in (1, 2)]

    def trained(compile_it: bool) -> AdversarialModule:
        torch.manual_seed(0)
        module = build_model(compose(*overrides), images_of(8, channels=3, classes=10))
        if model == "gat":
            module.discriminator.blocks = module.discriminator.blocks[
                :1
            ]  # what others compile to, too
        if compile_it:
            compile_passes(module, AHEAD, CPU)
        torch._dynamo.reset()
        counters.clear()
        return fit(module, precision=precision)

    ours = trained(True)
    assert not counters["graph_break"] and counters["stats"]["unique_graphs"] >= 3
    theirs = trained(False)
    assert not counters["stats"]
    tolerance = 1e-4 if precision == "32-true" else 1e-2
    torch.testing.assert_close(
        weights_of(ours.state_dict()), weights_of(theirs.state_dict()), rtol=tolerance, atol=1e-5
    )


def test_networks_that_grow_are_rejected(
    train: Train, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    base = ("model=progan", "batch_size=16", "data.image_size=8", "metrics=none")
    train("compile=true", status=2, base=base)
    assert "networks grow, and each step of a fade-in" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_backend_unknown(train: Train, capsys: pytest.CaptureFixture[str]) -> None:
    train("compile=inductr", status=2)
    assert "compile=inductr must be true, false or one of" in capsys.readouterr().err
    assert backend_of(True) == "inductor" and backend_of(False) is None
    assert backend_of("eager") == "eager"


def test_a_compiler_that_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(function: object, **settings: object) -> Callable[..., Any]:
        def run(*arguments: object) -> None:
            raise RuntimeError("No working C++ compiler found\nin a long list")

        return run

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(
        InputError, match=r"\(No working C\+\+ compiler found\); it needs a C\+\+ compiler"
    ):
        check_compiler("inductor", CPU)


@pytest.mark.slow
def test_a_machine_without_a_compiler(tmp_path: Path) -> None:
    # a process of its own: inductor remembers the compiler that it has found
    overrides = [*TINY, "compile=true", f"runs_dir={tmp_path}/runs", "name=run"]
    ended = subprocess.run(
        [sys.executable, "-m", "gan_lab", "train", *overrides],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "CXX": str(tmp_path / "none")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 2 and "inductor does not work here" in ended.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("model", ["dcgan", "stylegan2"])
def test_inductor_draws_and_computes_the_same(model: str, tmp_path: Path) -> None:
    """Noise, mixing of styles, lazy R1 and path length included; sums in another order."""
    overrides = [
        *(
            f"model={model}",
            "batch_size=4",
            "data.image_size=8",
            "total_kimg=0.012",
            "metrics=none",
        ),
        *("~callbacks.samples", "~callbacks.evaluation", f"runs_dir={tmp_path}", "trainer=cpu"),
    ]
    if model == "stylegan2":
        overrides += [
            *("model.generator.z_dim=8", "model.generator.w_dim=8"),
            *(f"model.{p}.channel_base=64" for p in ("generator", "discriminator")),
        ]
    for choice in ("true", "false"):
        assert launch("train", [*overrides, f"compile={choice}", f"name={choice}_"]) == 0
    ours, theirs = (
        torch.load(tmp_path / f"{c}_" / "checkpoints" / "last.ckpt", weights_only=True)
        for c in ("true", "false")
    )
    torch.testing.assert_close(
        weights_of(ours["state_dict"]), weights_of(theirs["state_dict"]), rtol=1e-4, atol=1e-5
    )


def weights_of(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Those of both players."""
    return {k: v for k, v in state.items() if k.startswith(("generator.", "discriminator."))}
