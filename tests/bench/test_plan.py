"""Plans: their contestants, and the work of a call."""

from __future__ import annotations

import pytest

from alexnet_mf.bench.plan import BOOK, OURS, Contestant, Plan, work
from alexnet_mf.errors import AlexnetMfError
from alexnet_mf.spec import arithmetic
from alexnet_mf.spec.zoo import ALEXNET


def labels(plan: Plan) -> list[str]:
    return [contestant.label for contestant in plan.contestants(32)]


def test_each_backend_has_two_styles():
    assert labels(Plan(("torch", "mxnet"))) == ["torch float32", "torch book", "mxnet float32", "mxnet book"]
    assert labels(Plan(("torch",), book=False)) == ["torch float32"]
    assert labels(Plan(("numpy", "torch"), book=False)) == ["numpy float64", "torch float32"]


def test_the_book_has_no_phases_input_and_epoch():
    assert labels(Plan(("torch",), phases=("input", "epoch"))) == ["torch float32"]


def test_each_precision_and_each_setting_left_out_is_a_contestant():
    assert labels(Plan(("torch",), precisions=("float32", "tf32"), ablate=("compile", "fused"), book=False)) == [
        "torch float32", "torch float32 -compile", "torch float32 -fused",
        "torch tf32", "torch tf32 -compile", "torch tf32 -fused"]
    assert labels(Plan(("torch",), speed={"compile": False}, ablate=("compile", "fused"), book=False)) == [
        "torch float32 -compile", "torch float32 -compile -fused"]
    assert labels(Plan(("torch",), speed={"layout": True}, tried=("compile", "compile+fused"), book=False)) == [
        "torch float32 +layout", "torch float32 +compile +layout", "torch float32 +compile +fused +layout"]


def test_the_books_style_leaves_everything_out():
    book = Plan(("torch",)).contestants(8)[1]
    assert book == Contestant(backend="torch", style=BOOK, precision="as shipped", speed={"all": False},
                              batch_size=8)
    assert Plan(("torch",)).contestants(8)[0].style == OURS


@pytest.mark.parametrize("options, message", [
    ({"backends": ("jax",)}, "`backends` must be one of torch, tensorflow, mxnet, numpy, not 'jax'"),
    ({"backends": "torch"}, "`backends` must be a list, not 'torch'"),
    ({"backends": ("torch", "torch")}, "`backends` names a value twice: torch, torch"),
    ({"phases": ("forwards",)}, "`phases` must be one of forward, step, .*, not 'forwards'"),
    ({"phases": ()}, "`phases` must have at least one item"),
    ({"precisions": ("half",)}, "`precisions` must be one of float32, tf32, bfloat16, .*, not 'half'"),
    ({"speed": {"turbo": True}}, "`speed` must be one of allocator, autotune, compile, .*, not 'turbo'"),
    ({"speed": {"compile": "yes"}}, r"`speed\['compile'\]` must be of type bool, not 'yes'"),
    ({"speed": "compile"}, "`speed` must be of type dict, not 'compile'"),
    ({"ablate": ("turbo",)}, "`ablate` must be one of allocator, autotune, compile, .*, not 'turbo'"),
    ({"tried": ("compile+turbo",)}, "`tried` must be one of allocator, autotune, compile, .*, not 'turbo'"),
    ({"net": 3}, "`net` must be of type str, not 3"), ({"device": None}, "`device` must be of type str, not None"),
    ({"rounds": 0}, "`rounds` must be at least 1, not 0"), ({"rounds": 2.5}, "`rounds` must be an integer, not 2.5"),
    ({"batch_sizes": (32, 0)}, "`batch_sizes` must be at least 1, not 0"),
    ({"batch_sizes": 32}, "`batch_sizes` must be a list, not 32"),
    ({"epoch_batches": 1}, "`epoch_batches` must be at least 2, not 1"),
    ({"seed": -1}, "`seed` must be at least 0, not -1"),
    ({"sample_seconds": 0.0}, "`sample_seconds` must be a number greater than 0, not 0.0"),
], ids=lambda value: "" if isinstance(value, str) else str(value))
def test_an_invalid_plan_is_refused(options, message):
    with pytest.raises(AlexnetMfError, match=message):
        Plan(**{"backends": ("torch",), **options}).check_settings()


# Work


def test_flops_of_a_call_are_those_of_its_layers():
    """A training step costs three forward passes, minus the gradient with respect to the image."""
    macs = sum(arithmetic.macs(ALEXNET).values())
    forward = work("forward", ALEXNET, "float32", 784, 32)
    assert (forward.images, forward.flops, forward.bytes) == (32, 2 * 32 * macs, 0)
    for phase in ("forward_backward", "step", "epoch"):
        assert work(phase, ALEXNET, "float32", 784, 32).flops == 2 * 32 * (3 * macs - 33_872_256)
        assert work(phase, ALEXNET, "float32", 784, 32).bytes == 0


def test_bytes_of_a_call_are_reads_and_writes():
    """Input reads gray levels and writes pixels. The optimizer reads weights and gradients and writes weights."""
    assert work("input", ALEXNET, "float32", 784, 32).bytes == 32 * (28 * 28 + 4 * 224 * 224)
    assert work("input", ALEXNET, "bfloat16", 784, 32).bytes == 32 * (28 * 28 + 2 * 224 * 224)
    assert work("optimizer", ALEXNET, "float32", 784, 32).bytes == 3 * 4 * 46_764_746
    assert work("optimizer", ALEXNET, "bfloat16", 784, 32).bytes == 3 * 4 * 46_764_746
    assert work("optimizer", ALEXNET, "float64", 784, 32).bytes == 3 * 8 * 46_764_746
    assert work("input", ALEXNET, "float32", 784, 32).flops == work("optimizer", ALEXNET, "tf32", 784, 32).flops == 0
