"""Datasets, from their sources to batches: built-in ones, and pictures of the user's own."""

from alexnet_mf.data.batches import batches, epoch_order
from alexnet_mf.data.dataset import Dataset, LabeledImages
from alexnet_mf.data.downloads import Progress
from alexnet_mf.data.sources import DATASETS, DataSource, fashion_mnist, synthetic
from alexnet_mf.data.sources.fashion_mnist import FASHION_CLASSES

__all__ = ["DATASETS", "FASHION_CLASSES", "DataSource", "Dataset", "LabeledImages", "Progress", "batches",
           "epoch_order", "fashion_mnist", "synthetic"]
