"""Fashion-MNIST (Xiao, Rasul and Vollgraf 2017): 60,000 training and 10,000 test images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from alexnet_mf.data import downloads
from alexnet_mf.data.dataset import Dataset
from alexnet_mf.data.sources import idx

FASHION_CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The class of each label 0-9 (Xiao, Rasul and Vollgraf 2017, table 2)."""

MD5 = {  # as published in the README of github.com/zalandoresearch/fashion-mnist
    "train-images-idx3-ubyte.gz": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train-labels-idx1-ubyte.gz": "25c81989df183df01b3e8a0aad5dffbe",
    "t10k-images-idx3-ubyte.gz": "bef4ecab320f06d8554ea6380940ec79",
    "t10k-labels-idx1-ubyte.gz": "bb300cfdad3c16e7a12a480ee83cd310",
}

SHA256 = "032f2ab5ad64c00cb5a74d0c730f15ac74e348b5d3c5b48ac62792dcd2d1a81c"
"""`Dataset.digest` of the published images."""

MIRRORS = (  # folders that hold the four files, tried in this order
    "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
)


def load(data_dir: Path | None = None, *, seed: int = 0, progress: downloads.Progress | None = None) -> Dataset:
    """Return Fashion-MNIST.

    A folder named by `data_dir`, or by ALEXNET_MF_DATA_DIR, is final: it must hold the four files, gzipped or unpacked,
    with any number of images, and nothing is downloaded. Otherwise missing or damaged files are downloaded into the
    user's cache folder.

    Args:
        seed: ignored; the dataset is fixed.
        progress: shown during downloads.

    Raises:
        DataError: if files are missing, damaged or cannot be downloaded; names them and the remedy.
    """
    folder = downloads.named_folder(data_dir)
    if folder is not None:
        paths, remedy = downloads.find(folder, tuple(MD5)), idx.REMEDY
    else:
        folder, remedy = downloads.cache_folder("fashion-mnist"), "delete it and run again, or use `data='synthetic'`"
        hashes = {name: f"md5:{digits}" for name, digits in MD5.items()}
        paths = downloads.fetch(folder, "Fashion-MNIST", hashes, MIRRORS,
                                "point `data_dir` at the four Fashion-MNIST files, or use `data='synthetic'`", progress)
    train_images, train_labels, test_images, test_labels = (paths[name] for name in MD5)
    train = idx.read_pair(train_images, train_labels, remedy)
    test = idx.read_pair(test_images, test_labels, remedy)
    return named(Dataset("fashion-mnist", train, test, FASHION_CLASSES, f"Fashion-MNIST from {folder}"))


def named(data: Dataset) -> Dataset:
    """Return the dataset with the names of the garments if its images are Fashion-MNIST's, else with numbers: MNIST and
    others have files of the same names."""
    if data.digest() == SHA256:
        return replace(data, name="fashion-mnist", classes=FASHION_CLASSES)
    if data.classes is not FASHION_CLASSES:
        return data
    origin = data.origin.replace("Fashion-MNIST", "images in the format of Fashion-MNIST")
    return replace(data, classes=tuple(map(str, range(len(FASHION_CLASSES)))), origin=origin,
                   notices=(f"{origin}: are not Fashion-MNIST's by their checksum; the classes are numbered",))
