"""Progress displays on a wide terminal, on a narrow one, in a pipe, and when quiet."""

from __future__ import annotations

import io
import re
import sys
import threading
from types import SimpleNamespace

import pytest

from alexnet_mf.instruments import progress as shown
from alexnet_mf.instruments.progress import DownloadDisplay, ImagesDisplay, fitted
from alexnet_mf.training import display as training_display
from alexnet_mf.training.display import TrainingDisplay
from alexnet_mf.training.loop import Epoch, Progress


class Terminal(io.StringIO):
    """Output stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        """Output without colors and cursor moves."""
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.getvalue())


@pytest.fixture
def terminal(monkeypatch):
    """Return a function that replaces a stream with a terminal of `columns` columns."""
    def install(columns: int, stream: str = "stdout", **environment: str) -> Terminal:
        for name in ("NO_COLOR", "FORCE_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in {"COLUMNS": str(columns), "TERM": "xterm-256color", **environment}.items():
            monkeypatch.setenv(name, value)
        screen = Terminal()
        monkeypatch.setattr(sys, stream, screen)
        return screen
    return install


@pytest.fixture
def clock(monkeypatch):
    """Time of the displays, which a test advances."""
    fake_time = SimpleNamespace(now=0.0)
    for module in (shown, training_display):
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: fake_time.now))
    return fake_time


def progress_at(step: int, rate: float = 10.0) -> Progress:
    return Progress(1, 2, step, 100, 2.0, 0.25, rate, (200 - step) / rate)


def test_progress_in_a_pipe_is_a_line_every_ten_seconds(capsys, clock):
    with TrainingDisplay(quiet=False) as display:
        for step in range(1, 26):
            clock.now += 1.0
            display.progress(progress_at(step))
    assert capsys.readouterr().out.splitlines() == [
        "epoch 1/2, step 10/100: loss 2.000, train acc 0.250, 10.0 images/s, 19 s left",
        "epoch 1/2, step 20/100: loss 2.000, train acc 0.250, 10.0 images/s, 18 s left"]


def test_an_unknown_rate_is_not_shown(capsys, monkeypatch):
    """The rate is unknown after the first step, which may be slow."""
    monkeypatch.setattr(shown, "PLAIN_INTERVAL", 0.0)
    TrainingDisplay(quiet=False).progress(progress_at(1, rate=float("nan")))
    assert capsys.readouterr().out == "epoch 1/2, step 1/100: loss 2.000, train acc 0.250\n"


@pytest.mark.parametrize("columns, text", [
    (120, "loss 2.000, train acc 0.250, 10.0 images/s, 10 s left"), (60, "loss 2.000, train acc 0.250, 10 s left"),
    (45, "loss 2.000, 10 s left"), (28, "10 s left")])
def test_a_narrow_terminal_keeps_the_time_left(terminal, columns, text):
    screen = terminal(columns)
    with TrainingDisplay(quiet=False) as display:
        display.progress(progress_at(100))
        display.bar.refresh()
    assert f"{text} " in screen.text or screen.text.rstrip().endswith(text) or f"{text}\r" in screen.text
    assert max(map(len, re.split(r"[\r\n]+", screen.text))) <= columns
    if columns < 120:
        assert "images/s" not in screen.text
    assert "━" in screen.text


@pytest.mark.parametrize("environment, has_color", [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)])
def test_colors_follow_the_environment(terminal, environment, has_color):
    screen = terminal(80, **environment)
    with TrainingDisplay(quiet=False) as display:
        display.progress(progress_at(50))
        display.epoch(Epoch(1, 2.0, 0.25, 1.9, 0.3))
    assert bool(re.search(r"\x1b\[[0-9;]*3[0-9]", screen.getvalue())) is has_color
    assert ": loss 2.000, train acc 0.250, test acc 0.300" in screen.text


def test_lines_from_any_thread_are_whole_and_above_the_bar(terminal):
    screen = terminal(60)
    lines = [f"line {i} {'of some length ' * 8}end" for i in range(20)]
    with TrainingDisplay(quiet=False) as display:
        threads = [threading.Thread(target=display.warn, args=[line]) for line in lines]
        for step, thread in enumerate(threads):
            thread.start()
            display.progress(progress_at(step + 1))
        for thread in threads:
            thread.join()
    for line in lines:
        assert line in screen.text


@pytest.mark.parametrize("bar", [True, False], ids=["above the bar", "without a bar"])
def test_a_long_line_wraps_between_words_at_the_terminals_width(terminal, bar):
    screen = terminal(40)
    text = "3 epochs of all images, batch 128, lr 0.01, momentum 0.9, weight decay 0.0005, augmented by flip, crop"
    with TrainingDisplay(quiet=not bar) as display:
        display.line(text)
    lines = [line for line in re.split(r"[\r\n]+", screen.text) if re.search("epochs|decay|crop", line)]
    assert max(map(len, lines)) <= 40 and len(lines) >= 3
    assert set(text.split()) <= set(screen.text.split())


def test_the_evaluation_of_an_epoch_is_shown(capsys, clock):
    with TrainingDisplay(quiet=False) as display:
        display.progress(progress_at(100))
        for done in range(0, 10_000, 512):
            display.evaluation(done, 10_000)
            clock.now += 5.12
    assert capsys.readouterr().out.splitlines()[:2] == [
        "epoch 1/2: loss 2.000, train acc 0.250, 10.0 images/s, evaluating 1,024 of 10,000, 1 min 30 s left",
        "epoch 1/2: loss 2.000, train acc 0.250, 10.0 images/s, evaluating 2,048 of 10,000, 1 min 20 s left"]


def test_a_narrow_terminal_shows_the_evaluation_rather_than_the_training(terminal, clock):
    screen = terminal(64)
    with TrainingDisplay(quiet=False) as display:
        display.progress(progress_at(100))
        display.evaluation(0, 10_000)
        clock.now += 10.0
        display.evaluation(1_000, 10_000)
        display.bar.refresh()
    assert "evaluating 1,000 of 10,000, 1 min 30 s left" in screen.text


def test_quiet_shows_nothing(capsys, monkeypatch):
    monkeypatch.setattr(shown, "PLAIN_INTERVAL", 0.0)
    with TrainingDisplay(quiet=True) as training, ImagesDisplay("predicting", 9, quiet=True) as images:
        training.progress(progress_at(1))
        training.evaluation(3, 9)
        training.epoch(Epoch(1, 2.0, 0.25, 1.9, 0.3))
        images.done(3)
    download(DownloadDisplay("data", quiet=True), [5, 5])
    assert capsys.readouterr() == ("", "")


def download(display: DownloadDisplay, chunks: list[int], clock: SimpleNamespace | None = None) -> None:
    """Call the display as pooch does."""
    display.total = sum(chunks)
    for chunk in chunks:
        if clock:
            clock.now += 4.0
        display.update(chunk)
    display.reset()
    display.update(sum(chunks))
    display.close()


def test_a_download_in_a_pipe_is_a_line_every_ten_seconds(capsys, clock):
    display = DownloadDisplay("Fashion-MNIST")
    for _ in range(2):  # each of the files
        download(display, [4_000_000] * 5, clock)
    assert capsys.readouterr() == ("", 2 * (
        "downloading Fashion-MNIST: 20.0 MB\n"
        "downloading Fashion-MNIST: 12.0 of 20.0 MB, 1.0 MB/s, 8 s left\n"))


def test_a_download_on_a_terminal_is_a_bar_with_the_time_left(terminal, clock, capsys):
    screen = terminal(80, "stderr")
    display = DownloadDisplay("Fashion-MNIST")
    for _ in range(2):
        display.total = 20_000_000
        clock.now += 4.0
        display.update(8_000_000)
        display.bar.refresh()
        display.close()
        assert "8.0 of 20.0 MB, 2.0 MB/s, 6 s left" in screen.text
        assert "━" in screen.text
        screen.truncate(0)
    assert capsys.readouterr().out == ""


def test_images_have_a_bar_too(terminal, clock):
    screen = terminal(80, "stderr")
    with ImagesDisplay("evaluating", 1000, quiet=False) as display:
        clock.now += 2.0
        display.done(500)
        display.bar.refresh()
    assert "500 of 1,000 images, 250.0 images/s, 2 s left" in screen.text


@pytest.mark.parametrize("room, text", [(100, "a, bb, ccc"), (7, "a, ccc"), (3, "ccc"), (1, "ccc")])
def test_the_most_important_fields_are_kept_in_their_order(room, text):
    assert fitted(["a", "bb", "ccc"], (2, 0, 1), room) == text
