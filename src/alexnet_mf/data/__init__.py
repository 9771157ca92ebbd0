"""Datasets, from their sources to batches: Fashion-MNIST, and a synthetic one that needs no files."""

from alexnet_mf.data.batches import batches, epoch_order
from alexnet_mf.data.dataset import Dataset, LabeledImages
from alexnet_mf.data.sources import DATASETS, DatasetName, fashion_mnist, load, synthetic
from alexnet_mf.data.sources.fashion_mnist import FASHION_CLASSES
from alexnet_mf.data.store import Progress

__all__ = ["DATASETS", "FASHION_CLASSES", "Dataset", "DatasetName", "LabeledImages", "Progress", "batches",
           "epoch_order", "fashion_mnist", "load", "synthetic"]
