"""The Python API: one function for each verb of the command line.

    run = alexnet_mf.train("lenet5", backend="torch", epochs=2)
    model = run.build(backend="mxnet")
    logits = model.logits(model.place(images, labels), batch_size=128)

All names are in `alexnet_mf.api`; `alexnet_mf` exports those that do not clash with a module's name. A framework is
imported when its backend is first used. Errors come from `alexnet_mf.errors` and name arguments in backticks.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alexnet_mf import backends, conversion, datasets, evaluation, models, spec
from alexnet_mf import predict as prediction
from alexnet_mf.analysis import first_convolution
from alexnet_mf.analysis.first_convolution import Filters
from alexnet_mf.analysis.run import analyze
from alexnet_mf.backends.execution import AS_IT_COMES, Execution
from alexnet_mf.bench.report import bench_report
from alexnet_mf.bench.run import bench
from alexnet_mf.checks import check_choice, check_integer, check_list, check_path, check_type
from alexnet_mf.conversion import FORMATS, Conversion, Weights, Which, convert
from alexnet_mf.data import DataSource, LabeledImages
from alexnet_mf.data.batches import ten_crops
from alexnet_mf.data.image_files import Unreadable
from alexnet_mf.data.survey import Survey, survey
from alexnet_mf.errors import AlexnetMfError, BackendUnavailable, DataError, Notice
from alexnet_mf.evaluation import Evaluation
from alexnet_mf.instruments.progress import ImagesDisplay
from alexnet_mf.models import LoadedModel, build
from alexnet_mf.parity.run import parity, parity_compare, parity_trace
from alexnet_mf.plots import Picture
from alexnet_mf.predict import Prediction
from alexnet_mf.pretrained import get_weights, list_weights
from alexnet_mf.shapes import ShapeReport, shapes
from alexnet_mf.spec import Network, Preprocessing, arithmetic, zoo
from alexnet_mf.spec.preprocessing import Color
from alexnet_mf.sweep.run import sweep
from alexnet_mf.training import metrics, record
from alexnet_mf.training.display import TrainingDisplay, Watcher
from alexnet_mf.training.new_folder import RUNS
from alexnet_mf.training.recipe import Recipe
from alexnet_mf.training.record import Run
from alexnet_mf.training.run import TrainedRun, load_run, read_record, resume, train
from alexnet_mf.weights import parameters

__all__ = [
    "Conversion", "DataSource", "EvaluationReport", "Execution", "PredictionReport", "Recipe", "ShapeReport",
    "TrainedRun", "TrainingDisplay", "UsedWeights", "Watcher", "analyze", "bench", "bench_report", "build",
    "convert", "data", "evaluate", "get_weights", "list_backends", "list_networks", "list_runs", "list_weights",
    "load_run", "parity", "parity_compare", "parity_trace", "plot_curves", "plot_filters", "predict", "resume",
    "shapes", "sweep", "train"]


@dataclass(frozen=True, eq=False)
class UsedWeights:
    """Weights from a run or a file, and the model that computes with them."""

    weights: Weights
    loaded: LoadedModel
    run: Run | None = None
    """Record of the run; None if the weights come from a file."""

    def title(self) -> str:
        """Return network, backend, versions, device and weights file in one line."""
        return f"{self.loaded.title()}, weights {self.weights.path}"

    def as_dict(self) -> dict[str, Any]:
        """Return network, backend, device and digests as JSON values."""
        session = self.loaded.session()
        del session["settings"]
        return {**session, "network": self.weights.network.name, "spec_sha256": spec.fingerprint(self.weights.network),
                "weights": str(self.weights.path), "weights_sha256": parameters.digest(self.weights.parameters)}


@dataclass(frozen=True, eq=False)
class PredictionReport:
    """Predictions for pictures."""

    used: UsedWeights
    preprocessing: Preprocessing
    """Steps that turn a picture into the network's input."""
    classes: tuple[str, ...]
    """Names of the classes."""
    predictions: list[Prediction]
    unreadable: list[Unreadable]


@dataclass(frozen=True, eq=False)
class EvaluationReport:
    """An evaluation on test images."""

    used: UsedWeights
    origin: str
    """Source of the images, as text."""
    test: LabeledImages
    classes: tuple[str, ...]
    """Names of the classes."""
    evaluation: Evaluation
    images_per_second: float


def predict(source: Path | str, images: Iterable[Path | str], *, net: Network | Path | str | None = None,
            which: Which = "last", backend: str | None = None, device: str = "auto",
            execution: Execution = AS_IT_COMES, top: int = 3, limit: int | None = None, invert: bool = False,
            mean: Sequence[float] | None = None, std: Sequence[float] | None = None, normalize: bool = True,
            resize: int | tuple[int, int] | None = None, crop: int | tuple[int, int] | None = None,
            color: Color | None = None, classes: Sequence[str] | None = None,
            progress: bool = True) -> PredictionReport:
    """Classify pictures, after the preprocessing that the weights state.

    Args:
        source: run folder, or a weights file of any format that `convert` reads.
        images: PNG and JPEG files, folders of them, and idx files.
        net: the network; without it `source` names it.
        which: the weights to take from a run folder: `last` or `best`.
        backend: without it the run's own, the file format's framework if installed, or the first that is installed.
        device, execution: as for `build`.
        top: number of classes to return for each picture, at most all.
        limit: number of pictures to take from each folder and idx file.
        invert: invert pictures that are dark on light.
        mean, std: numbers that normalize the channels, red first, after scaling to [0, 1]. A network that takes color
            needs them if the weights state no preprocessing.
        normalize: False to scale to [0, 1] only.
        resize: pixels of the shorter side, or (height, width) of the whole picture.
        crop: side, or (height, width), of the center crop after resizing; without it, the input's size.
        color: order of the channels, `rgb` or `bgr`, as Caffe's networks take them; without it the weights' own, else
            `rgb`.
        classes: names of the classes; without them those of the weights, else Fashion-MNIST's if there are ten and the
            input is gray, else numbers.
        progress: show a bar on a terminal.

    Raises:
        AlexnetMfError: if an argument is wrong, or weights, network or backend are missing or damaged. An unreadable
            picture raises no error; a notice names it.
    """
    paths = [Path(path) for path in check_list("images", images, (str, Path))]
    check_integer("top", top)
    check_type("invert", invert, bool)
    check_type("normalize", normalize, bool)
    check_type("progress", progress, bool)
    for name, numbers in (("mean", mean), ("std", std)):
        if numbers is not None:
            check_list(name, numbers, (int, float))
    if limit is not None:
        check_integer("limit", limit)
    if classes is not None:
        classes = check_list("classes", classes)
    used = open_model(source, net, which, backend, device, execution)
    network = used.weights.network
    if classes is not None and len(classes) != network.classes:
        raise AlexnetMfError(f"`classes` has {len(classes):,} names, but {network.name} has {network.classes:,} "
                             "classes")
    preprocessing = prediction.choose_preprocessing(used.weights, mean=mean, std=std, normalize=normalize,
                                                    resize=resize, crop=crop, color=color, invert=invert)
    predictions: list[Prediction] = []
    unreadable: list[Unreadable] = []
    with ImagesDisplay("predicting", None, not progress) as display:
        for answer in prediction.predict(used.loaded.model, paths, preprocessing, top, limit):
            if isinstance(answer, Unreadable):
                unreadable.append(answer)
                warnings.warn(f"{answer.name}: {answer.reason}", Notice, stacklevel=2)
            else:
                predictions.append(answer)
                display.done(len(predictions))
    light = sum(prediction.is_dark_on_light(answer.seen, preprocessing) for answer in predictions)
    if 2 * light > len(predictions):
        warnings.warn(f"{light:,} of {len(predictions):,} pictures seem to be dark on light, and the weights take "
                      "light on dark; use `invert`", Notice, stacklevel=2)
    if classes is None and used.weights.classes is None:
        warnings.warn(f"{used.weights.path}: does not name its classes; name them with `classes`", Notice, stacklevel=2)
    names = tuple(classes) if classes is not None else prediction.class_names(used.weights)
    return PredictionReport(used, preprocessing, names, predictions, unreadable)


def evaluate(source: Path | str, *, net: Network | Path | str | None = None, which: Which = "last",
             backend: str | None = None, device: str = "auto", execution: Execution = AS_IT_COMES,
             data: DataSource | Path | str | None = None, data_dir: Path | str | None = None,
             test_images: int | None = None, ten_crop: bool = False, progress: bool = True) -> EvaluationReport:
    """Evaluate weights on the test images: loss, accuracy, confusion matrix and the most confident mistakes.

    Args:
        source, net, which, backend, device, execution, progress: as for `predict`.
        data, data_dir: as for `train`; without `data` the run's dataset, else `auto`.
        test_images: number of test images to use, chosen at random, the same each time; without it all.
        ten_crop: average the probabilities of five crops of each picture and their mirror images, as in the paper.

    Raises:
        AlexnetMfError: as `predict`, and if the classes of the weights and of the dataset have other names.
    """
    if test_images is not None:
        check_integer("test_images", test_images)
    check_type("progress", progress, bool)
    check_type("ten_crop", ten_crop, bool)
    used = open_model(source, net, which, backend, device, execution)
    weights, network = used.weights, used.weights.network
    own = used.run.source if used.run else DataSource()
    if data is None:
        datasets.check_place(own, Path(source))
    images_of = datasets.source_of(own if data is None else data, data_dir)
    opened = datasets.open_source(images_of, not progress)
    if len(opened.classes) != network.classes:
        raise DataError(f"{weights.path}: has {network.classes:,} classes, but {opened.origin} has "
                        f"{len(opened.classes):,}; use weights for these classes")
    preprocessing = prediction.stated_preprocessing(weights)
    opened = datasets.with_classes_of(opened, weights.classes, str(weights.path))
    preprocessing = datasets.choose(opened, network, preprocessing)
    images = datasets.prepare(opened, preprocessing, images_of, not progress, parts=("test",))
    if used.run and images.digest("test") != used.run.test_sha256:
        warnings.warn(f"{Path(source)}: was trained on {used.run.data}; these images are {images.origin}", Notice,
                      stacklevel=2)
    images.check_limits(test_images=test_images)
    test = images.test.some(test_images)
    views = [prediction.normalized(view, preprocessing, network)
             for view in (ten_crops(test, network) if ten_crop else [test])]
    with ImagesDisplay("evaluating", len(test), not progress) as display:
        figures = evaluation.evaluate(used.loaded.model, test, display.done, views=views)
        rate = len(test) / display.seconds
    return EvaluationReport(used, images.origin, test, images.classes, figures, rate)


def data(source: DataSource | Path | str, *, data_dir: Path | str | None = None, progress: bool = True) -> Survey:
    """Return what a dataset holds: classes, numbers and sizes of its images, and pictures that cannot be decoded.

    Args:
        source, data_dir: as `data` and `data_dir` of `train`.
        progress: show a bar on a terminal.

    Raises:
        AlexnetMfError: if it cannot be read.
    """
    opened = datasets.open_source(datasets.source_of(source, data_dir), not check_type("progress", progress, bool))
    with ImagesDisplay("decoding", None, not progress) as display:
        def report(done: int, total: int) -> None:
            display.total = total
            display.done(done)

        return survey(opened, report)


def open_model(source: Path | str, net: Network | Path | str | None = None, which: Which = "last",
               backend: str | None = None, device: str = "auto", execution: Execution = AS_IT_COMES) -> UsedWeights:
    """Build the network of a run or a weights file. The file is read and checked before a framework is imported.

    Args:
        source, net, which, backend, device, execution: as for `predict`.
    """
    source = check_path("source", source)
    name = backend if backend is None else check_choice("backend", backend, backends.BACKENDS)
    run, session = read_record(source) if record.is_run(source) else (None, None)
    weights = conversion.read(source, net, which)
    if name is None and session and session.backend in backends.BACKENDS:
        if backends.is_installed(session.backend):
            name = session.backend
        else:
            warnings.warn(f"{source}: was trained in {session.backend}, which is not installed here "
                          f"({backends.BACKENDS[session.backend].install})", Notice, stacklevel=3)
    own = FORMATS[weights.format].backend
    name = name or (own if own and backends.is_installed(own) else models.default_backend())
    return UsedWeights(weights, models.load(name, weights.network, weights.parameters, device, execution), run)


def plot_curves(runs: Iterable[Path | str], plot: Path | str) -> None:
    """Draw the training curves of one or more runs in one picture.

    Args:
        runs: run folders.
        plot: PNG file to write.

    Raises:
        AlexnetMfError: if a run cannot be read, the file cannot be written, or matplotlib is missing.
    """
    folders = [Path(run) for run in check_list("runs", runs, (str, Path))]
    picture = Picture(plot, "alexnet_mf.plots.curves")
    for folder in folders:
        if folder.is_file():
            raise AlexnetMfError(f"{folder}: is a file, not a run folder; to draw the filters of weights, use "
                                 "`plot_filters`")
        if not record.is_run(folder) and not (folder / metrics.NAME).exists():
            raise record.no_run(folder)
    names = [folder.resolve().name for folder in folders]
    labels = [str(folder) if names.count(name) > 1 else name for name, folder in zip(names, folders)]
    lines = {label: metrics.read(folder) for label, folder in zip(labels, folders)}
    if len(lines) < len(folders):
        raise AlexnetMfError(f"the same run is named twice: {', '.join(labels)}; name it once")
    for label, entries in lines.items():
        if not entries:
            raise AlexnetMfError(f"{label}: has no metrics yet")
    picture.save(picture.module.png(lines))


def plot_filters(source: Path | str, plot: Path | str, *, net: Network | Path | str | None = None,
                 which: Which = "last") -> Filters:
    """Draw the filters of the first convolution, and return them.

    Args:
        source, net, which: as for `predict`.
        plot: PNG file to write.

    Raises:
        AlexnetMfError: if the weights cannot be read or drawn, the file cannot be written, or matplotlib is missing.
    """
    picture = Picture(plot, "alexnet_mf.plots.filters")
    first = first_convolution.read(check_path("source", source), net, which)
    picture.save(picture.module.png(first.weights, f"{first.network}, {first.layer}"))
    return first


def list_backends() -> list[dict[str, Any]]:
    """Return each backend's state, version, devices, install command and, if it is broken, its problem."""
    entries = []
    for name, entry in backends.BACKENDS.items():
        state, devices, problem = "not installed", [], None
        if backends.is_installed(name):
            try:
                devices = [f"{device.name} ({device.description})" if device.description else device.name
                           for device in backends.load(name).devices()]
                state = "installed"
            except BackendUnavailable as error:
                state, problem = "broken", str(error)
        entries.append({"backend": name, "state": state, "version": backends.framework_version(name),
                        "devices": devices, "install": entry.install, "problem": problem})
    return entries


def list_networks(only: Path | str | None = None) -> list[dict[str, Any]]:
    """Return each network's input, parameters, multiply-accumulates per image and source.

    Args:
        only: the network to describe, by name, from a .toml file, or from a weights file that describes it.
    """
    entries = []
    for network in zoo.NETWORKS.values() if only is None else [conversion.find_described(only)]:
        entries.append({"network": network.name, "input": "x".join(map(str, network.input)),
                        "parameters": sum(arithmetic.parameter_counts(network).values()),
                        "multiply_accumulates": sum(arithmetic.macs(network).values()), "source": network.source})
    return entries


def list_runs(folder: Path | str = RUNS) -> list[dict[str, Any]]:
    """Return the state and closing numbers of each run in a folder.

    Raises:
        AlexnetMfError: if the folder cannot be read.
    """
    folder = check_path("folder", folder)
    if not folder.exists() and folder != RUNS:
        raise AlexnetMfError(f"{folder}: no such folder; name the folder that contains the runs")
    try:
        paths = sorted(path for path in folder.iterdir() if record.is_run(path)) if folder.exists() else []
    except OSError as error:
        raise AlexnetMfError(f"{folder}: cannot be read ({error.strerror}); name another folder") from error
    return [record.summary(path) for path in paths]
