"""The TensorFlow tab of section 8.1, as a reader would type it: every number a literal, compiled and fitted.

It verifies how `alexnet-tab-tensorflow` is built, and is the baseline of the benchmark. Nothing else uses it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.layers import Conv2D, Dense, Dropout, Flatten, MaxPool2D
from numpy.typing import NDArray


def alexnet() -> keras.Sequential:
    """Return the tab's 14 layers; conv1 is not padded. Keras's defaults are Xavier-uniform weights and zero biases."""
    return keras.Sequential([
        keras.Input((224, 224, 1)),
        Conv2D(96, kernel_size=11, strides=4, activation="relu"), MaxPool2D(pool_size=3, strides=2),
        Conv2D(256, kernel_size=5, padding="same", activation="relu"), MaxPool2D(pool_size=3, strides=2),
        Conv2D(384, kernel_size=3, padding="same", activation="relu"),
        Conv2D(384, kernel_size=3, padding="same", activation="relu"),
        Conv2D(256, kernel_size=3, padding="same", activation="relu"), MaxPool2D(pool_size=3, strides=2),
        Flatten(),
        Dense(4096, activation="relu"), Dropout(0.5),
        Dense(4096, activation="relu"), Dropout(0.5),
        Dense(10),
    ])


def loader(images: NDArray[np.uint8], labels: NDArray[np.int64], shuffle: bool,
           batch_size: int = 128) -> tf.data.Dataset:
    """Return batches of images, scaled and resized on the host one by one. It shuffles the batches, not the images."""
    pairs = tf.data.Dataset.from_tensor_slices((images[..., np.newaxis], labels.astype(np.int32)))
    pairs = pairs.map(lambda image, label: (
        tf.image.resize_with_pad(tf.cast(image, tf.float32) / 255, 224, 224), label))
    batches = pairs.batch(batch_size)
    return batches.shuffle(len(images)) if shuffle else batches


def compile_net(net: keras.Sequential, lr: float) -> None:
    """Set optimizer, loss and metrics in Keras's way."""
    net.compile(keras.optimizers.SGD(learning_rate=lr), keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                metrics=["accuracy"])


def train(net: keras.Sequential, train_batches: tf.data.Dataset, test_batches: tf.data.Dataset, epochs: int = 10,
          lr: float = 0.01) -> tuple[float, float, float, float]:
    """Train by the tab's `fit`. The clock excludes evaluation only.

    Returns:
        The last epoch's loss, train accuracy and test accuracy, and examples per second (the tab counts whole batches).
    """
    compile_net(net, lr)
    seconds, batch_size = 0.0, next(iter(test_batches))[1].shape[0]
    for _ in range(epochs):
        start = time.perf_counter()
        history = net.fit(train_batches, verbose=0).history
        seconds += time.perf_counter() - start
        test_accuracy = net.evaluate(test_batches, return_dict=True, verbose=0)["accuracy"]
    examples = epochs * len(train_batches) * batch_size
    return history["loss"][-1], history["accuracy"][-1], test_accuracy, examples / seconds


def calls(batch_size: int) -> dict[str, Callable[[], Any]]:
    """Return the benchmark's calls: training and inference on one batch that is ready.

    `fit` does much work before its first batch. A step here is one pass of its inner loop: the function that it builds,
    and the metrics as numbers.
    """
    net = alexnet()
    compile_net(net, 0.01)
    x = tf.random.uniform((batch_size, 224, 224, 1))
    batches = tf.data.Dataset.from_tensors((x, tf.zeros(batch_size, tf.int32))).repeat()
    net.fit(batches, steps_per_epoch=1, verbose=0)  # builds the function
    iterator = iter(batches)
    return {"forward": lambda: net.predict(x, batch_size, verbose=0),
            "step": lambda: {name: float(value) for name, value in net.train_function(iterator).items()}}
