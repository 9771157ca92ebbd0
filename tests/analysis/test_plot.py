"""The roofline plot: its points, its shades of gray, and labels that do not overlap."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.text import Text

from alexnet_mf.analysis import plot
from alexnet_mf.analysis.costs import costs
from alexnet_mf.analysis.roofline import Ceilings
from alexnet_mf.spec import Network, zoo
from alexnet_mf.spec.layers import Conv2d, Dense, Flatten

DEVICE = Ceilings(300e9, 20e9)
SECONDS = {"forward": 0.2, "step": 0.6}
DEEP = Network("deep", (3, 32, 32), (
    *(Conv2d(f"convolution{i}{'_with_a_long_name' * (i == 7)}", channels=16, kernel=3, padding=1) for i in range(24)),
    Flatten("flatten"), Dense("dense", units=10)))
DENSE = Network("dense", (1, 28, 28), (Flatten("flatten"), Dense("fc1", units=10)))


def picture(network: Network, device: Ceilings = DEVICE, batch_size: int = 16):
    figure = plot.draw(costs(network, batch_size), device, SECONDS, "some device")
    figure.canvas.draw()
    return figure


def test_layers_lie_on_the_roof_and_the_network_at_its_measured_rate():
    result = costs(zoo.ALEXNET, 16)
    for panel, whole, seconds in zip(picture(zoo.ALEXNET).axes, (result.forward, result.training), (0.2, 0.6)):
        roof, convolutions, dense, measured = panel.lines
        assert roof.get_xdata()[1] == 15.0 and roof.get_ydata()[1] == 300.0
        assert len(convolutions.get_xdata()) == 5 and len(dense.get_xdata()) == 3
        for line in (convolutions, dense):
            for x, y in zip(line.get_xdata(), line.get_ydata()):
                assert y == pytest.approx(min(300.0, 20.0 * x))
        assert (measured.get_xdata()[0], measured.get_ydata()[0]) == pytest.approx(
            (whole.intensity, whole.flops / seconds / 1e9))


def test_axes_have_units():
    left, right = picture(zoo.ALEXNET).axes
    assert left.get_xlabel() == right.get_xlabel() == "arithmetic intensity (FLOP/byte)"
    assert left.get_ylabel() == "rate (GFLOP/s)"
    assert "inference, batch 16" in left.get_title(loc="left")


@pytest.mark.parametrize("network", [zoo.ALEXNET, zoo.LENET5, DEEP, DENSE], ids=lambda net: net.name)
@pytest.mark.parametrize("device", [DEVICE, Ceilings(60e12, 3e12), Ceilings(1e9, 1e12)], ids=["cpu", "gpu", "odd"])
def test_labels_overlap_neither_each_other_nor_points(network, device):
    figure = picture(network, device)
    renderer = figure.canvas.get_renderer()
    for panel in figure.axes:
        texts = {text.get_text(): text for text in panel.texts}
        assert len(texts) == sum(isinstance(layer, (Conv2d, Dense)) for layer in network.layers)
        frame = panel.get_window_extent(renderer)
        boxes = [Text.get_window_extent(text, renderer) for text in panel.texts]  # without the line to its point
        for a, b in itertools.combinations(boxes, 2):
            assert not a.overlaps(b), f"{network.name}: {a} {b}"
        for box in boxes:
            assert frame.x0 - 1 <= box.x0 and box.x1 <= frame.x1 + 1 and box.y0 >= frame.y0
        legend = panel.get_legend()
        taken = boxes + ([legend.get_window_extent(renderer)] if legend else [])
        for line in panel.lines:
            for point in panel.transData.transform(np.column_stack(line.get_data())):
                assert not any(box.contains(*point) for box in taken)


def test_no_color_is_needed():
    for panel in picture(zoo.ALEXNET).axes:
        markers = [line.get_marker() for line in panel.lines]
        assert len(set(markers)) == len(markers)
        for line in panel.lines:
            for color in (line.get_color() if line.get_linestyle() != "None" else "black",
                          line.get_markerfacecolor() if line.get_marker() != "None" else "black"):
                red, green, blue = to_rgb(color)
                assert red == green == blue


def test_the_plot_is_a_png():
    assert plot.png(costs(zoo.LENET5, 8), DEVICE, SECONDS).startswith(b"\x89PNG")


@pytest.mark.parametrize("wanted, gap, places", [
    ([0.2, 0.5, 0.8], 0.1, [0.2, 0.5, 0.8]),
    ([0.5, 0.5], 0.1, [0.45, 0.55]),
    ([0.4, 0.45, 0.5], 0.1, [0.35, 0.45, 0.55]),
    ([0.0, 0.0], 0.1, [0.03, 0.13]),
    ([0.97, 0.99], 0.1, [0.87, 0.97]),
    ([0.3, 0.42, 0.42], 0.1, [0.28, 0.38, 0.48]),  # two labels push the third, so all three move
])
def test_labels_are_spread_no_further_than_necessary(wanted, gap, places):
    assert plot.spread(wanted, gap) == pytest.approx(places)
