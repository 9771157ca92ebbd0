"""Published weights: downloaded from a local server, checked by their hash, and written with all that is known."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest
from console import call
from sizes import narrower

from alexnet_mf import conversion, pretrained, spec
from alexnet_mf.errors import AlexnetMfError, DataError
from alexnet_mf.pretrained import PRETRAINED, get_weights, imagenet_classes, list_weights
from alexnet_mf.spec import zoo
from alexnet_mf.spec.preprocessing import IMAGENET
from alexnet_mf.weights import parameters


@pytest.fixture
def small_owt(monkeypatch: pytest.MonkeyPatch) -> spec.Network:
    """Replace alexnet-owt by a narrow network of that name."""
    network = dataclasses.replace(narrower(zoo.ALEXNET_OWT), name="alexnet-owt")
    monkeypatch.setattr(zoo, "ALEXNET_OWT", network)
    monkeypatch.setitem(zoo.NETWORKS, "alexnet-owt", network)
    return network


@pytest.fixture
def published(requires: Any, small_owt: spec.Network, mirrors: Any, monkeypatch: pytest.MonkeyPatch,
              tmp_path: Path) -> Any:
    """Publish small weights on the local server; return the server and the weights."""
    requires("torch")
    monkeypatch.chdir(tmp_path)
    weights = parameters.initialize(small_owt, 3, random_biases=True)
    content = conversion.encode("torchvision", small_owt, weights)
    mirrors.first.files["small.pth"] = content
    entry = dataclasses.replace(PRETRAINED["torchvision"], folder=mirrors.first.url, file="small.pth",
                                checksum=f"sha256:{hashlib.sha256(content).hexdigest()[:8]}")
    monkeypatch.setitem(PRETRAINED, "torchvision", entry)
    return mirrors.first, weights


def test_downloaded_weights_carry_classes_preprocessing_and_accuracy(published):
    server, weights = published
    path = get_weights("torchvision", progress=False)
    read = conversion.read(path)
    assert path == Path("torchvision.safetensors")
    assert parameters.digest(read.parameters) == parameters.digest(weights)
    assert read.network.name == "alexnet-owt"
    assert read.metadata["preprocessing"] == IMAGENET.as_dict()
    assert len(read.metadata["classes"]) == 1000
    assert read.metadata["published_accuracy_percent"] == {"top_1": 56.522, "top_5": 79.066}
    get_weights("torchvision", "again.safetensors", progress=False)
    assert server.requests == ["small.pth"], "the second time from the cache"


def test_weights_with_another_hash_are_refused(published, monkeypatch):
    server, _ = published
    server.files["small.pth"] += b"x"
    with pytest.raises(DataError, match=r"no mirror of the weights torchvision delivers it \(.*its hash is not the "
                                        r"published one\); download http.*small.pth by hand, and use `convert`"):
        get_weights("torchvision", progress=False)
    assert not list(Path().glob("*.safetensors"))


def test_a_damaged_download_in_the_cache_is_replaced(published, cache):
    server, _ = published
    get_weights("torchvision", progress=False)
    (cache / "small.pth").write_bytes(b"damaged")
    get_weights("torchvision", progress=False, overwrite=True)
    assert server.requests == ["small.pth"] * 2


def test_weights_in_a_zip_file_are_unpacked(published, requires, small_owt, monkeypatch):
    requires("mxnet")
    server, weights = published
    content = conversion.encode("gluon-zoo", small_owt, weights)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        packed.writestr("small.params", content)
    server.files["small.zip"] = archive.getvalue()
    entry = dataclasses.replace(PRETRAINED["gluon-zoo"], folder=server.url, file="small.zip", member="small.params",
                                checksum=f"sha1:{hashlib.sha1(content).hexdigest()}")
    monkeypatch.setitem(PRETRAINED, "gluon-zoo", entry)
    path = get_weights("gluon-zoo", progress=False)
    assert parameters.digest(conversion.read(path).parameters) == parameters.digest(weights)
    monkeypatch.setitem(PRETRAINED, "gluon-zoo", dataclasses.replace(entry, checksum=f"sha1:{'0' * 40}"))
    with pytest.raises(DataError, match=r"small.zip: cannot be unpacked \(its hash is not the published one\)"):
        get_weights("gluon-zoo", progress=False, overwrite=True)
    server.files["other.zip"] = b"PK no archive"
    monkeypatch.setitem(PRETRAINED, "gluon-zoo", dataclasses.replace(entry, file="other.zip"))
    with pytest.raises(DataError, match=r"other.zip: cannot be unpacked \(File is not a zip file\); delete it"):
        get_weights("gluon-zoo", progress=False, overwrite=True)


def test_an_existing_file_is_replaced_only_with_overwrite(published):
    server, _ = published
    Path("torchvision.safetensors").write_text("mine")
    with pytest.raises(AlexnetMfError, match="exists; name another file, or replace it with `overwrite`"):
        get_weights("torchvision", progress=False)
    assert not server.requests


def test_the_command_lists_and_downloads(published, capsys):
    done = call(capsys, "weights", "list")
    assert done.code == 0 and all(name in done.out for name in PRETRAINED)
    done = call(capsys, "weights", "get", "torchvision", "--quiet")
    assert (done.code, done.out) == (0, "wrote torchvision.safetensors\n")
    for words, fragment in ((["get"], "weights get takes a name: torchvision, gluon-zoo"),
                            (["get", "nothing"], "invalid choice: 'nothing'"),
                            (["list", "torchvision"], "weights list takes no name")):
        done = call(capsys, "weights", *words)
        assert done.code == 2 and fragment in done.err


@pytest.mark.parametrize("name", PRETRAINED)
def test_published_weights_fit_a_built_in_network(name):
    entry = PRETRAINED[name]
    network = zoo.get_network(entry.network)
    assert network.classes == len(imagenet_classes()) == 1000
    assert entry.preprocessing.size == network.input[1:]
    assert 50 < entry.top1 < entry.top5 < 90
    assert [each["weights"] for each in list_weights()] == list(PRETRAINED)


def test_torchvision_publishes_these_weights_and_classes(requires):
    requires("torch")
    from torchvision.models import AlexNet_Weights

    published = AlexNet_Weights.IMAGENET1K_V1
    entry = pretrained.PRETRAINED["torchvision"]
    assert published.url == entry.folder + entry.file
    assert entry.checksum.partition(":")[2] in published.url
    assert published.meta["categories"] == imagenet_classes()
    assert published.meta["_metrics"]["ImageNet-1K"] == {"acc@1": entry.top1, "acc@5": entry.top5}


def test_mxnet_publishes_these_weights(requires):
    requires("mxnet")
    from alexnet_mf import backends

    backends.load("mxnet")
    from mxnet.gluon.model_zoo import model_store

    entry = pretrained.PRETRAINED["gluon-zoo"]
    assert entry.checksum == f"sha1:{model_store._model_sha1['alexnet']}"
    assert entry.folder.startswith(model_store.apache_repo_url)
    assert entry.file == f"alexnet-{model_store.short_hash('alexnet')}.zip"
