"""Pretrained weights that others publish: download, check by the published hash, and write as canonical safetensors."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from alexnet_mf import conversion, files
from alexnet_mf.checks import check_choice, check_path, check_type
from alexnet_mf.conversion import Weights
from alexnet_mf.data import downloads
from alexnet_mf.errors import DataError
from alexnet_mf.instruments.progress import DownloadDisplay
from alexnet_mf.spec.preprocessing import CAFFE, IMAGENET, Preprocessing
from alexnet_mf.weights.recognition import CANONICAL

FOLDER = "pretrained"
"""Name of the cache folder."""


@dataclass(frozen=True)
class Pretrained:
    """A published weights file."""

    network: str
    folder: str
    """URL of the folder that holds the file."""
    file: str
    checksum: str
    """The published hash, `sha1:...`, or the beginning of it, `sha256:7be5be79`."""
    megabytes: int
    preprocessing: Preprocessing
    top1: float
    """Published share of ImageNet's validation images whose class is right, center crop, in percent."""
    top5: float
    """Published share of those whose class is among the five most probable, in percent."""
    source: str
    member: str | None = None
    """Name of the weights in a zip file; the hash is theirs."""


PRETRAINED = {
    # torchvision/models/alexnet.py, AlexNet_Weights.IMAGENET1K_V1. The name has the first 8 digits of the SHA-256.
    "torchvision": Pretrained("alexnet-owt", "https://download.pytorch.org/models/", "alexnet-owt-7be5be79.pth",
                              "sha256:7be5be79", 233, IMAGENET, 56.522, 79.066, "torchvision, IMAGENET1K_V1"),
    # mxnet/gluon/model_zoo/model_store.py; accuracies from the model zoo's documentation.
    "gluon-zoo": Pretrained("alexnet-owt",
                            "https://apache-mxnet.s3-accelerate.dualstack.amazonaws.com/gluon/models/",
                            "alexnet-44335d1f.zip", "sha1:44335d1f0046b328243b32a26a4fbd62d9057b45", 227, IMAGENET,
                            54.92, 78.03, "MXNet's model zoo, converted from an earlier torchvision",
                            member="alexnet-44335d1f.params"),
    # caffe/models/bvlc_alexnet/readme.md and caffe/models/bvlc_reference_caffenet/readme.md
    "caffe-alexnet": Pretrained("alexnet-caffe", "http://dl.caffe.berkeleyvision.org/", "bvlc_alexnet.caffemodel",
                                "sha1:9116a64c0fbe4459d18f4bb6b56d647b63920377", 244, CAFFE, 57.1, 80.2,
                                "Caffe, bvlc_alexnet"),
    "caffe-caffenet": Pretrained("caffenet", "http://dl.caffe.berkeleyvision.org/",
                                 "bvlc_reference_caffenet.caffemodel",
                                 "sha1:4c8d77deb20ea792f84eb5e6d0a11ca0a8660a46", 244, CAFFE, 57.4, 80.4,
                                 "Caffe, bvlc_reference_caffenet"),
}
"""Published weights by the name for `get_weights`."""


def imagenet_classes() -> list[str]:
    """Return the names of ImageNet's 1000 classes, in the order of all these weights (torchvision's list)."""
    text = resources.files("alexnet_mf.weights").joinpath("imagenet_classes.txt").read_text(encoding="utf-8")
    return text.splitlines()


def list_weights() -> list[dict[str, object]]:
    """Return name, network, size, published accuracy in percent and source of each published weights file."""
    return [{"weights": name, "network": entry.network, "megabytes": entry.megabytes, "top_1_percent": entry.top1,
             "top_5_percent": entry.top5, "source": entry.source} for name, entry in PRETRAINED.items()]


def get_weights(name: str, out: Path | str | None = None, *, overwrite: bool = False, progress: bool = True) -> Path:
    """Download published weights into the user's cache, unless they are there, and write them as safetensors.

    Class names, preprocessing and published accuracies are in the file's header. No framework is needed.

    Args:
        name: one of `list_weights`.
        out: file to write; without it NAME.safetensors.
        overwrite: replace the file if it exists.
        progress: show a bar on a terminal.

    Returns:
        The path of the file.

    Raises:
        DataError: if the file cannot be downloaded, or its hash is not the published one.
        AlexnetMfError: if an argument is wrong, or the file cannot be written.
    """
    entry = PRETRAINED[check_choice("name", name, PRETRAINED)]
    path = check_path("out", out) if out is not None else Path(f"{name}.{CANONICAL}")
    check_type("progress", progress, bool)
    conversion.check_destination(path, CANONICAL, check_type("overwrite", overwrite, bool))
    weights = _read(name, entry, progress)
    about = {"preprocessing": entry.preprocessing.as_dict(), "classes": imagenet_classes(), "source": entry.source,
             "published_accuracy_percent": {"top_1": entry.top1, "top_5": entry.top5}}
    files.write_result(path, conversion.encode(CANONICAL, weights.network, weights.parameters, about))
    return path


def _read(name: str, entry: Pretrained, progress: bool) -> Weights:
    folder = downloads.cache_folder(FOLDER)
    remedy = f"download {entry.folder}{entry.file} by hand, and use `convert`"
    paths = downloads.fetch(folder, f"the weights {name}", {entry.file: entry.checksum if not entry.member else None},
                        [entry.folder], remedy, DownloadDisplay(f"weights {name}", not progress))
    path = paths[entry.file]
    if entry.member:
        path = _unpack(path, entry)
    return conversion.read(path, entry.network)


def _unpack(archive: Path, entry: Pretrained) -> Path:
    """Write the member of a zip file beside it, and return its path.

    Raises:
        DataError: if it is missing, damaged, or its hash is not the published one.
    """
    assert entry.member is not None
    path = archive.with_name(entry.member)
    try:
        with zipfile.ZipFile(archive) as content:
            member = content.getinfo(entry.member)
            if member.file_size > 2 * 10**6 * entry.megabytes:
                raise ValueError(f"{member.file_size / 1e6:,.0f} MB unpacked")
            files.write(path, content.read(member))
        if not downloads.has_hash(path, entry.checksum):
            raise ValueError("its hash is not the published one")
    except (OSError, KeyError, ValueError, NotImplementedError, zipfile.BadZipFile) as error:
        raise DataError(f"{archive}: cannot be unpacked ({' '.join(str(error).split())}); delete it and try again"
                        ) from error
    return path
