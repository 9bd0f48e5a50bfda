"""gan-lab bench: its report, on networks whose operations can be counted by hand."""

import json
from pathlib import Path
from typing import Any

import pytest

from gan_lab.commands.launch import launch

BATCH, LATENT, WIDTH, PIXELS, UNITS, PIECES = 8, 10, 16, 3 * 4 * 6, 5, 2
TINY = (
    *("data=random", "data.image_size=[4,6]", "data.channels=3", "metrics=none"),
    *("model=gan", f"model.generator.z_dim={LATENT}", f"model.generator.width={WIDTH}"),
    *(f"model.discriminator.width={UNITS}", f"model.discriminator.pieces={PIECES}"),
    *(f"batch_size={BATCH}", "rounds=3", "warmup=1", "total_kimg=0.032", "trainer=cpu"),
)
# multiplications an image
IN_G = LATENT * WIDTH + WIDTH * WIDTH + WIDTH * PIXELS
IN_D = PIXELS * UNITS * PIECES + UNITS * UNITS * PIECES + UNITS
# the weights' gradients, and the inputs' but for the first layer's
BACK_G = 2 * IN_G - LATENT * WIDTH
BACK_D = 2 * IN_D - PIXELS * UNITS * PIECES


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    def measured(*overrides: str) -> dict[str, Any]:
        out = tmp_path / "bench.json"
        assert launch("bench", [*TINY, f"out={out}", *overrides]) == 0
        return dict(json.loads(out.read_text()))

    return measured


def test_operations_are_those_counted_by_hand(bench: Any) -> None:
    phases = bench("parts=[steps]")["steps"]["phases"]
    assert set(phases) == {"generator", "discriminator", "rest"}
    # one image through G, two through D and back
    assert phases["discriminator"]["flops"] == 2 * BATCH * (IN_G + 2 * (IN_D + BACK_D))
    # through G and D, back through D to the image without its weights, back through G
    assert phases["generator"]["flops"] == 2 * BATCH * (IN_G + 2 * IN_D + BACK_G)
    assert phases["rest"]["flops"] == 0


def test_a_lazy_penalty_is_weighted_by_its_interval_and_another_measured_separately(
    bench: Any,
) -> None:
    overrides = ("regularizer=[r1,gradient_penalty]", "regularizer.r1.interval=4", "d_steps=2")
    steps = bench("parts=[steps]", *overrides)["steps"]
    phases = steps["phases"]
    times = {name: cost.get("times_per_step") for name, cost in phases.items()}
    assert times == {
        "discriminator": 2,
        "r1": 2 / 4,
        "generator": 1,
        "rest": 1,
        "gradient_penalty": None,
    }
    assert phases["gradient_penalty"]["part_of"] == "discriminator"
    # between real and generated images: through D, back to them, and what both of these derive from
    assert phases["gradient_penalty"]["flops"] > 2 * BATCH * (2 * IN_D + BACK_D)
    for what in ("seconds", "cpu_seconds", "flops"):
        whole = sum(
            phases[name][what] * times[name]
            for name in ("discriminator", "r1", "generator", "rest")
        )
        assert steps["step"][what] == pytest.approx(whole)
    assert steps["img_per_s"] == pytest.approx(2 * BATCH / steps["step"]["seconds"])


def test_micro_batches_mixed_precision_classes_and_schedules(bench: Any) -> None:
    schedule = "{_target_: gan_lab.training.schedules.Cosine, start: 1e-3, end: 0, end_kimg: 1}"
    result = bench(
        "parts=[steps,loop]",
        *("micro_batch_size=4", "trainer.precision=bf16-mixed", "data.num_classes=3"),
        *("regularizer=[r1]", f"+model.schedules.generator.lr={schedule}"),
        "at_kimg=0.5",
    )
    steps = result["steps"]
    assert steps["peak"]["dtype"] == "bfloat16" and result["precision"] == "bf16-mixed"
    assert steps["phases"]["r1"]["flops"] > 0
    # two micro-batches of half the images are as many operations; inputs are 3 longer with the label, in G forward
    # and back to the weights, in D forward and back to the pixels with it
    more = 2 * 3 * WIDTH + 2 * 3 * UNITS * PIECES
    assert steps["phases"]["generator"]["flops"] == 2 * BATCH * (IN_G + 2 * IN_D + BACK_G + more)
    # the plain loop has none of this
    beyond = result["loop"]["left_out_for"]
    assert set(beyond) == {"schedules", "micro-batches", "precision bf16-mixed"}


def test_everything_that_the_metrics_depend_on_is_written(bench: Any) -> None:
    result = bench("parts=[steps,loop,data,metrics]", "metrics=none")
    assert {"time", "model", "device", "threads", "precision", "load_average"} <= set(result)
    assert (result["sample"], result["batch_size"]) == ([3, 4, 6], BATCH)
    assert set(result["versions"]) == {"gan_lab", "python", "torch", "lightning"}
    steps = result["steps"]
    assert steps["parameters"]["generator"] == IN_G + 2 * WIDTH + PIXELS
    assert steps["peak_memory_gib"] > 0.05
    assert steps["peak"]["flops_per_s"] > 1e8
    for phase in ("generator", "discriminator"):
        cost = steps["phases"][phase]
        assert cost["flops_per_s"] == pytest.approx(cost["flops"] / cost["seconds"])
        assert 0 < cost["share_of_peak"] < 1
    loop = result["loop"]
    assert set(loop) == {"plain_img_per_s", "lightning_img_per_s", "time_lightning_over_plain"}
    assert result["data"]["img_per_s"] > 0
    assert result["metrics"] == {}


@pytest.mark.slow
def test_processes_against_threads(bench: Any) -> None:
    found = bench("parts=[ranks]", "rounds=1", "total_kimg=0.16")["ranks"]
    layouts = ("1x1", "2x1", "1x2")
    assert set(found) == {
        *(f"{layout}_img_per_s" for layout in layouts),
        "2x1_over_1x1",
        "2x1_over_1x2",
    }
    assert all(value > 0 for value in found.values())
    gain = found["2x1_img_per_s"] / found["1x2_img_per_s"]
    assert found["2x1_over_1x2"] == pytest.approx(gain)


@pytest.mark.slow
def test_compiled_phases_have_the_operations_of_those_that_are_not(bench: Any) -> None:
    overrides = ("parts=[steps]", "rounds=1", "warmup=0")
    ours, theirs = bench(*overrides, "compile=aot_eager"), bench(*overrides)
    assert (ours["compile"], theirs["compile"]) == ("aot_eager", None)
    for name, phase in theirs["steps"]["phases"].items():
        assert ours["steps"]["phases"][name]["flops"] == phase["flops"]


def test_a_lazy_penalty_skips_the_plain_loop(bench: Any) -> None:
    result = bench("parts=[loop]", "regularizer=[r1_lazy]", "augment=[blur]")
    assert (
        result["loop"] == {"left_out_for": ["lazy r1", "blur", "schedules"]}
        and "steps" not in result
    )


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["parts=[step]"], "steps, loop, data, metrics, ranks"),
        (["parts=[ranks]", "ranks=1"], "ranks=1 must be"),
        (["parts=[ranks]", "ranks=2", "batch_size=3"], "batch_size=3 cannot be shared evenly"),
        (["parts=[ranks]", "ranks=100000"], "ranks=100000 must be"),
        (["rounds=0"], "rounds=0"),
        (["data.num_classes=0"], "data.num_classes=0"),
        (["data.image_size=null"], "data.image_size=None"),
    ],
)
def test_options_without_effect_are_rejected(
    overrides: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch("bench", [*TINY, *overrides]) == 2
    assert message in capsys.readouterr().err


def test_an_evaluation_is_timed_with_and_without_the_generator(bench: Any) -> None:
    overrides = ("data=digits", "data.image_size=8", "data.channels=1", "metrics=digits")
    rates = bench("parts=[metrics]", *overrides)["metrics"]
    assert 0 < rates["sampling_and_metrics_img_per_s"] < rates["metrics_img_per_s"]
