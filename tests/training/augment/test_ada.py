import io
import multiprocessing
from pathlib import Path

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from gan_lab.errors import InputError
from gan_lab.training.augment import Augmentation
from gan_lab.training.augment.ada import ADA, GROUPS, OPERATIONS, PIPES

SETS = ("blit", "geom", "color", "filter", "noise", "cutout", "bgc", "bgcfnc")


def fixed(pipe: str, p: float = 1.0, **strengths: float) -> ADA:
    return ADA(pipe=pipe, p=p, target=None, strengths=strengths)


def only(operation: str, p: float) -> ADA:
    return fixed("blit", p, **{**dict.fromkeys(OPERATIONS, 0.0), operation: 1.0})


def seeded(augmentation: Augmentation, images: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    return augmentation(images)


# Which images change ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_p_of_0_is_the_identity(dtype):
    images = torch.randn(3, 3, 9, 8).to(dtype)
    assert torch.equal(fixed("bgcfnc", 0.0)(images), images)
    assert torch.equal(ADA(pipe="bgcfnc")(images), images)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_that_draw_nothing_pass_to_the_bit(channels):
    images = torch.randn(400, channels, 8, 8)
    result = seeded(fixed("bgcfnc", 0.1), images)
    same = (result == images).flatten(1).all(1).sum().item()
    # 19 decisions an image, some of which change nothing, and hue and saturation are not for gray
    assert 30 < same < 150


@pytest.mark.parametrize(
    ("operation", "changing"),
    [
        ("xflip", 1 / 2),  # or not
        ("rotate90", 3 / 4),  # by 0 to 3 right angles
        ("xint", 3 / 4),  # by -1 to 1 pixels each way, 0 half of the time
        ("scale", 1),
        ("rotate", 1),
        ("aniso", 1),
        ("xfrac", 1),
        ("brightness", 1),
        ("contrast", 1),
        ("lumaflip", 1 / 2),
        ("hue", 1),
        ("saturation", 1),
        ("imgfilter", (1 - 0.7**4) / 0.3),  # four bands
        ("noise", 1),
        ("cutout", 1),
    ],
)
def test_share_of_images_that_an_operation_changes(operation, changing):
    count, p = 2000, 0.3
    torch.manual_seed(1)
    images = torch.randn(count, 3, 8, 8)
    changed = (seeded(only(operation, p), images) != images).flatten(1).any(1)
    share = p * changing
    assert abs(changed.sum().item() - count * share) < 4 * (count * share * (1 - share)) ** 0.5


def test_strengths_multiply_p():
    images = torch.randn(2000, 1, 4, 4)
    changed = seeded(fixed("b", 0.6, xint=0, rotate90=0, xflip=0.5), images) != images
    assert 230 < changed.flatten(1).any(1).sum() < 370  # 0.6 * 0.5 * 0.5 of 2000 is 300
    assert torch.equal(fixed("b", 1.0, xint=0, rotate90=0, xflip=0)(images), images)


def test_pipes_are_the_papers_sets():
    assert {name for name in PIPES if len(PIPES[name]) > 1} == {
        *("bg", "bgc", "bgcf", "bgcfn", "bgcfnc")
    }
    for operation, strength in ADA(pipe="bgc").strengths.items():
        included = any(operation in GROUPS[group] for group in ("blit", "geom", "color"))
        assert strength == float(included)
    assert set(ADA(pipe="bgcfnc").strengths.values()) == {1.0}


# What it takes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("pipe", ["bgcfnc"])
@pytest.mark.parametrize("size", [(8, 8), (16, 16), (2, 2), (12, 20), (33, 7), (66, 72)])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sizes_and_channels(pipe, size, channels):
    images = torch.rand(4, channels, *size) * 2 - 1
    result = seeded(fixed(pipe), images)
    assert result.shape == images.shape and result.dtype == images.dtype
    assert torch.isfinite(result).all()
    assert (result != images).flatten(1).any(1).all()


def test_mixed_precision_computes_in_float32():
    images = torch.randn(4, 3, 8, 8)
    expected = seeded(fixed("bgcfnc"), images)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = seeded(fixed("bgcfnc"), images)
        low = seeded(fixed("bgcfnc"), images.bfloat16())
    assert torch.equal(inside, expected)
    assert low.dtype == torch.bfloat16
    exact = seeded(fixed("bgcfnc"), images.bfloat16().float())
    assert torch.equal(low, exact.bfloat16())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pipe": "gcb"}, "pipe=gcb is unknown; there are blit.*bgcfnc"),
        ({"p": 1.5}, "p=1.5 must be from 0 to 1"),
        ({"target": 1.0}, "target=1.0 must lie between -1 and 1"),
        ({"speed_kimg": 0}, "speed_kimg=0 must be positive"),
        ({"interval": 0}, "interval=0 at least 1"),
        ({"strengths": {"flip": 0}}, "strengths.flip is unknown; there are xflip.*cutout"),
        ({"strengths": {"xflip": -1}}, "strengths.xflip=-1 must not be negative"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(InputError, match=message):
        ADA(**arguments)


@pytest.mark.parametrize("shape", [(1, 2, 8, 8), (1, 3, 1, 8)])
def test_images_that_it_cannot_change(shape):
    with pytest.raises(InputError, match=f"{shape[1]} channels|1x8"):
        fixed("bgc")(torch.zeros(shape))


# Derivatives and randomness --------------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("pipe", SETS)
def test_derivatives(pipe, channels):
    augmentation = fixed(pipe, 0.9)
    torch.manual_seed(0)
    images = torch.randn(2, channels, 4, 5, dtype=torch.float64, requires_grad=True)
    assert gradcheck(lambda x: seeded(augmentation, x), images, fast_mode=True)
    # squared: what is linear in the images has no second derivative to get wrong
    squared = lambda x: seeded(augmentation, x).square()  # noqa: E731
    assert gradgradcheck(squared, images, fast_mode=True)


def test_a_gradient_penalty_through_it_trains_a_critic():
    augmentation = fixed("bgcfnc")
    critic = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.Tanh(), torch.nn.Flatten())
    images = torch.randn(4, 3, 8, 8, requires_grad=True)
    logits = critic(seeded(augmentation, images))
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    gradient.square().sum().backward()
    assert critic[0].weight.grad.abs().sum() > 0


def test_forward_mode_agrees_with_reverse_mode():
    augmentation = fixed("bgcfnc")
    images, tangent = torch.randn(2, 2, 3, 6, 6, dtype=torch.float64)
    out, forward = torch.func.jvp(lambda x: seeded(augmentation, x), (images,), (tangent,))
    images.requires_grad_()
    cotangent = torch.randn_like(out)
    (backward,) = torch.autograd.grad(seeded(augmentation, images), images, cotangent)
    assert torch.isclose((forward * cotangent).sum(), (backward * tangent).sum())


def test_draws_follow_torchs_seed():
    images = torch.randn(8, 3, 8, 8)
    augmentation = fixed("bgcfnc")
    assert torch.equal(seeded(augmentation, images, 3), seeded(augmentation, images, 3))
    assert not torch.equal(seeded(augmentation, images, 3), seeded(augmentation, images, 4))


# Control ---------------------------------------------------------------------------------------------------------


def steps(ada: ADA, logits: torch.Tensor, number: int) -> None:
    for _ in range(number):
        for micro_batch in logits.chunk(2):
            ada.observe(micro_batch)
        ada.adapt(len(logits))


def test_p_rises_at_the_papers_speed():
    ada = ADA(speed_kimg=10, interval=4)
    sure = torch.ones(64)
    steps(ada, sure, 3)
    assert ada.p == 0
    steps(ada, sure, 1)
    assert ada.p.item() == pytest.approx(4 * 64 / 10000)
    steps(ada, sure, 40)
    assert ada.p.item() == pytest.approx(44 * 64 / 10000)
    steps(ada, sure, 200)
    assert ada.p == 1
    steps(ada, -sure, 8)
    assert ada.p.item() == pytest.approx(1 - 8 * 64 / 10000)
    steps(ada, -sure, 200)
    assert ada.p == 0


@pytest.mark.parametrize(("positive", "direction"), [(51, -1), (52, 1)])
def test_r_is_the_mean_sign_not_the_mean(positive, direction):
    ada = ADA(p=0.5, target=0.6)  # 0.8 of the logits are positive where r_t = 0.6
    logits = torch.full((64,), -100.0)
    logits[:positive] = 0.01
    steps(ada, logits, 4)
    assert (ada.p - 0.5).sign() == direction


def test_metrics_are_p_and_r():
    ada = ADA(interval=2, speed_kimg=10)
    logits = torch.tensor([3.0, 0.1, -2.0, 0.5])
    steps(ada, logits, 3)  # the third is not looked at yet
    metrics = ada.metrics()
    assert metrics["r"].item() == 0.5 and metrics["p"].item() == 0
    steps(ada, torch.ones(4), 1)
    assert ada.metrics()["r"].item() == 0.75  # of the last two steps
    assert ada.metrics()["p"].item() == pytest.approx(8 / 10000)
    assert set(fixed("bgc").metrics()) == {"p"}


def test_nothing_observed_changes_nothing():
    ada = ADA(p=0.5, interval=1)
    ada.adapt(64)
    assert ada.p == 0.5


def overfit(ada: ADA, number: int, seed: int) -> list[float]:
    """Run ADA on a D that recognizes its training images, less so the more they are augmented."""
    generator = torch.Generator().manual_seed(seed)
    path = []
    for _ in range(number):
        overfitting = 0.95 - 0.7 * ada.p.item()  # r_t = 0.6 at p = 0.5
        signs = torch.rand(64, generator=generator) < (1 + overfitting) / 2
        steps(ada, signs.float() - 0.5, 1)
        path.append(ada.p.item())
    return path


@pytest.mark.parametrize("start", [0.0, 1.0])
def test_p_finds_its_target_where_d_overfits(start):
    path = overfit(ADA(p=start, speed_kimg=60), 1600, seed=0)
    settled = torch.tensor(path[800:])
    assert abs(settled.mean() - 0.5) < 0.05
    assert settled.std() < 0.06


def test_p_goes_on_from_a_checkpoint_to_the_bit():
    straight, first, second = (ADA(speed_kimg=60) for _ in range(3))
    path = overfit(straight, 50, seed=0)
    overfit(first, 30, seed=0)  # between two changes of p: 30 is not a multiple of 4
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second.load_state_dict(torch.load(file, weights_only=True))
    generator = torch.Generator().manual_seed(0)
    torch.rand(30, 64, generator=generator)
    for _ in range(20):
        overfitting = 0.95 - 0.7 * second.p.item()
        signs = torch.rand(64, generator=generator) < (1 + overfitting) / 2
        steps(second, signs.float() - 0.5, 1)
    assert second.p.item() == path[-1] > 0


def one_rank(rank: int, logits: torch.Tensor, folder: Path) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2
    )
    ada = ADA(interval=2)
    for mine in logits:
        ada.observe(mine[rank * 32 : rank * 32 + 32])
        ada.adapt(64)
    torch.save(ada.state_dict(), folder / f"{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ranks_adapt_equally_to_the_images_of_all(tmp_path):
    torch.manual_seed(0)
    logits = torch.rand(7, 64) - 0.2  # r_t about 0.6; the seventh step is not yet acted on
    context = multiprocessing.get_context("fork")
    ranks = [context.Process(target=one_rank, args=(rank, logits, tmp_path)) for rank in (0, 1)]
    for process in ranks:
        process.start()
    for process in ranks:
        process.join(60)
        assert process.exitcode == 0
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    alone = ADA(interval=2)
    for step in logits:
        steps(alone, step, 1)
    assert first["p"] == second["p"] == alone.p
    assert first["overfitting"] == alone.overfitting
    assert torch.equal(first["signs"], second["signs"])
    assert torch.equal(first["signs"] * 2, alone.signs)


def test_a_fixed_p_neither_adapts_nor_is_taken_from_a_checkpoint():
    ada = fixed("bgc", 0.3)
    steps(ada, torch.ones(64), 8)
    assert ada.p == 0.3
    adapted = ADA(speed_kimg=1)
    steps(adapted, torch.ones(64), 8)
    ada.load_state_dict(adapted.state_dict())
    assert ada.p == 0.3
    ada.p = 0.6  # as a schedule does
    assert ada.metrics()["p"].item() == pytest.approx(0.6)
    adapting = ADA(p=0.2)  # the other way round it begins where it is output to
    adapting.load_state_dict(ada.state_dict())
    assert adapting.p.item() == pytest.approx(0.2)


def test_an_adaptive_p_cannot_be_scheduled():
    assert "p" in vars(fixed("bgc")) and "p" not in vars(ADA())


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_host_never_waits_for_the_device():
    ada = ADA(pipe="bgcfnc", p=0.5).cuda()
    images = torch.randn(4, 3, 16, 16, device="cuda", requires_grad=True)

    def step() -> None:
        logits = ada(images).flatten(1).mean(1)
        (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
        gradient.square().sum().backward()
        ada.observe(logits)
        ada.adapt(4)

    step()  # what is kept from one step to the next is copied once
    torch.cuda.set_sync_debug_mode("error")
    try:
        step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
