"""The package's networks by name: each hyperparameter once, with its source beside it."""

from __future__ import annotations

from alexnet_mf.errors import SpecError
from alexnet_mf.spec import BiasInitialisation, Network
from alexnet_mf.spec.layers import (
    AdaptiveAvgPool2d,
    AvgPool2d,
    BatchNorm,
    Conv2d,
    Dense,
    Dropout,
    Flatten,
    Layer,
    LocalResponseNorm,
    MaxPool2d,
)


def _dense(fc6: int, fc7: int, classes: int) -> tuple[Layer, ...]:
    """Return AlexNet's end: three dense layers, the hidden ones with dropout."""
    return (
        Flatten("flatten"),
        Dense("fc6", units=fc6, activation="relu"),
        Dropout("drop6", rate=0.5),  # section 8.1.2.3; Krizhevsky et al. 2012, section 4.2: the first two dense layers
        Dense("fc7", units=fc7, activation="relu"),
        Dropout("drop7", rate=0.5),
        Dense("fc8", units=classes),
    )


def _alexnet(name: str, source: str, conv1_padding: int = 1, bias_initialisation: BiasInitialisation = "zeros",
             channels: tuple[int, ...] = (96, 256, 384, 384, 256), units: int = 4096) -> Network:
    conv1, conv2, conv3, conv4, conv5 = channels
    return Network(
        name=name,
        input=(1, 224, 224),  # Fashion-MNIST, upsampled from 28x28: section 8.1.3
        layers=(
            # Krizhevsky et al. 2012, section 3.5, as simplified in section 8.1.2: one tower, no normalization, and
            # "overlapping" 3x3 pooling with stride 2.
            Conv2d("conv1", channels=conv1, kernel=11, stride=4, padding=conv1_padding),
            MaxPool2d("pool1", kernel=3, stride=2),
            Conv2d("conv2", channels=conv2, kernel=5, padding=2),
            MaxPool2d("pool2", kernel=3, stride=2),
            Conv2d("conv3", channels=conv3, kernel=3, padding=1),
            Conv2d("conv4", channels=conv4, kernel=3, padding=1),
            Conv2d("conv5", channels=conv5, kernel=3, padding=1),
            MaxPool2d("pool5", kernel=3, stride=2),
            *_dense(units, units, 10),  # ten classes here, 1000 in the paper
        ),
        source=source,
        bias_initialisation=bias_initialisation,
    )


ALEXNET = _alexnet("alexnet", "Dive into Deep Learning, section 8.1 (after Krizhevsky et al. 2012)")

# The networks of the tabs of section 8.1. PyTorch pads conv1 by 1, the others by 0; both give 54x54. The PyTorch tab
# sets weights alone and keeps that framework's default biases.
TABS = {
    "torch": _alexnet("alexnet-tab-torch", "Dive into Deep Learning, section 8.1, PyTorch tab", 1, "uniform_fan_in"),
    "tensorflow": _alexnet("alexnet-tab-tensorflow", "Dive into Deep Learning, section 8.1, TensorFlow tab", 0),
    "mxnet": _alexnet("alexnet-tab-mxnet", "Dive into Deep Learning, section 8.1, MXNet tab", 0),
}
TAB = "alexnet-tab"
"""Name that stands for each backend's own tab in a comparison."""

ALEXNET_2012 = Network(
    name="alexnet-2012",
    # The paper's text does not add up. It says 224x224 (section 3.5), but with 11x11 kernels and stride 4 that is no
    # whole number of windows, (224 - 11) / 4 + 1 = 54.25; 227 gives the 55 of figure 2, on which all later sizes rest.
    # Its caption counts 253,440 neurons in the first layer, which is 55 x 48 x 96; 55 x 55 x 96 are 290,400.
    input=(3, 227, 227),
    layers=(
        # Krizhevsky et al. 2012, section 3.5 and figure 2: kernels 11x11x3 with stride 4, 5x5x48, 3x3x256, 3x3x192 and
        # 3x3x192. The inputs of conv2, conv4 and conv5 are half as deep as the layers before: the two streams, one
        # on each GPU, are groups here. Paddings are not stated; these keep the figure's sizes 55, 27 and 13.
        Conv2d("conv1", channels=96, kernel=11, stride=4),
        # Section 3.3: after the ReLU of conv1 and conv2; k, n, alpha and beta as there. The sum runs across the border
        # of the two streams too: in the paper's formula it ends at N, the number of kernels in the whole layer.
        LocalResponseNorm("norm1", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool2d("pool1", kernel=3, stride=2),  # section 3.4: z 3, s 2; section 3.5: after norm1, norm2 and conv5
        Conv2d("conv2", channels=256, kernel=5, padding=2, groups=2),
        LocalResponseNorm("norm2", size=5, alpha=1e-4, beta=0.75, k=2.0),
        MaxPool2d("pool2", kernel=3, stride=2),
        Conv2d("conv3", channels=384, kernel=3, padding=1),  # the one convolution that sees both streams
        Conv2d("conv4", channels=384, kernel=3, padding=1, groups=2),
        Conv2d("conv5", channels=256, kernel=3, padding=1, groups=2),
        MaxPool2d("pool5", kernel=3, stride=2),
        *_dense(4096, 4096, 1000),  # ILSVRC's classes
    ),
    # Initial weights are ours (Xavier, zero biases). Section 5 draws from N(0, 0.01), with ones for some biases.
    source="Krizhevsky et al. 2012, ImageNet Classification with Deep Convolutional Neural Networks",
)

ALEXNET_OWT = Network(
    name="alexnet-owt",
    input=(3, 224, 224),
    layers=(
        # Krizhevsky 2014, section 5: the network of 2012 as one tower, so without groups. The numbers are common to
        # torchvision's `alexnet` and MXNet's model zoo: 64-192-384-256-256, no normalization, and conv1 padded by
        # 2, (224 + 2 * 2 - 11) // 4 + 1 = 55.
        Conv2d("conv1", channels=64, kernel=11, stride=4, padding=2),
        MaxPool2d("pool1", kernel=3, stride=2),
        Conv2d("conv2", channels=192, kernel=5, padding=2),
        MaxPool2d("pool2", kernel=3, stride=2),
        Conv2d("conv3", channels=384, kernel=3, padding=1),
        Conv2d("conv4", channels=256, kernel=3, padding=1),
        Conv2d("conv5", channels=256, kernel=3, padding=1),
        MaxPool2d("pool5", kernel=3, stride=2),
        AdaptiveAvgPool2d("avgpool", size=6),  # torchvision's; changes nothing, since pool5 already gives 6x6
        Flatten("flatten"),
        # torchvision has dropout before fc6 and fc7, the model zoo after them; evaluation is the same.
        Dropout("drop5", rate=0.5),
        Dense("fc6", units=4096, activation="relu"),
        Dropout("drop6", rate=0.5),
        Dense("fc7", units=4096, activation="relu"),
        Dense("fc8", units=1000),
    ),
    source="Krizhevsky 2014, One Weird Trick for Parallelizing Convolutional Neural Networks, as in torchvision",
)



def _caffe(name: str, source: str, pools_first: bool = False) -> Network:
    """Return AlexNet as in the `deploy.prototxt` of Caffe's `models` folder, whose trained weights are public."""
    def norm_and_pool(number: int) -> tuple[Layer, ...]:
        # lrn_param: local_size 5, alpha 0.0001, beta 0.75; k is Caffe's default, not the paper's 2. Caffe divides alpha
        # by local_size, the spec does not: BVLC/caffe issue 1453.
        norm = LocalResponseNorm(f"norm{number}", size=5, alpha=2e-5, beta=0.75, k=1.0)
        # Caffe's pooling rounds sizes up, the spec's down. Here all windows fit: (55 - 3) / 2, (27 - 3) / 2 and
        # (13 - 3) / 2 are whole numbers.
        pool = MaxPool2d(f"pool{number}", kernel=3, stride=2)
        return (pool, norm) if pools_first else (norm, pool)

    return Network(
        name=name,
        input=(3, 227, 227),  # input_param; blue, green, red from 0 to 255, minus the mean image of the training set
        layers=(
            # convolution_param: num_output, kernel_size, stride, pad and group, each layer with a ReLU in place.
            Conv2d("conv1", channels=96, kernel=11, stride=4),
            *norm_and_pool(1),
            Conv2d("conv2", channels=256, kernel=5, padding=2, groups=2),
            *norm_and_pool(2),
            Conv2d("conv3", channels=384, kernel=3, padding=1),
            Conv2d("conv4", channels=384, kernel=3, padding=1, groups=2),
            Conv2d("conv5", channels=256, kernel=3, padding=1, groups=2),
            MaxPool2d("pool5", kernel=3, stride=2),
            *_dense(4096, 4096, 1000),  # inner_product_param: num_output; dropout_param: dropout_ratio 0.5
        ),
        # Initial weights are ours (Xavier, zero biases). Caffe's train_val.prototxt draws from N(0, 0.01), in fc6 and
        # fc7 from N(0, 0.005); biases of conv2, conv4, conv5, fc6 and fc7 start at 0.1, in CaffeNet at 1.
        source=source,
    )


ALEXNET_CAFFE = _caffe("alexnet-caffe", "Caffe's models/bvlc_alexnet, trained by Evan Shelhamer")
CAFFENET = _caffe("caffenet", "Caffe's models/bvlc_reference_caffenet, trained by Jeff Donahue", pools_first=True)

LENET5 = Network(
    name="lenet5",
    input=(1, 28, 28),  # Fashion-MNIST as it is
    layers=(
        # Dive into Deep Learning, section 7.6.1, after LeCun et al. 1998: average pooling with plain means, and no
        # Gaussian output units.
        Conv2d("conv1", channels=6, kernel=5, padding=2, activation="sigmoid"),
        AvgPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=5, activation="sigmoid"),
        AvgPool2d("pool2", kernel=2, stride=2),
        Flatten("flatten"),
        Dense("fc3", units=120, activation="sigmoid"),
        Dense("fc4", units=84, activation="sigmoid"),
        Dense("fc5", units=10),
    ),
    source="Dive into Deep Learning, section 7.6 (after LeCun et al. 1998)",
    learning_rate=0.9,  # section 7.6.2, there with batches of 256
)

LENET5_RELU = Network(
    name="lenet5-relu",
    input=LENET5.input,
    layers=(
        # Dive into Deep Learning, section 8.1.5, exercise 5: LeNet's sizes; ReLU, max pooling, dropout from AlexNet.
        Conv2d("conv1", channels=6, kernel=5, padding=2),
        MaxPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=5),
        MaxPool2d("pool2", kernel=2, stride=2),
        Flatten("flatten"),
        Dense("fc3", units=120, activation="relu"),
        Dropout("drop3", rate=0.25),  # ours: half of AlexNet's, for layers that are 34 and 49 times narrower
        Dense("fc4", units=84, activation="relu"),
        Dropout("drop4", rate=0.25),
        Dense("fc5", units=10),
    ),
    source="Dive into Deep Learning, section 8.1.5, exercise 5",
    # Ours: a ReLU passes gradients whole, a sigmoid at most a quarter, so LeNet's 0.9 is too large. The best of 0.03,
    # 0.1 and 0.3 on held-out training images (docs/readers/exercises.md).
    learning_rate=0.3,
)

LENET5_BN = Network(
    name="lenet5-bn",
    input=LENET5.input,
    layers=(
        # Dive into Deep Learning, section 8.5.4: LeNet with a batch normalization before each sigmoid, and without the
        # padding of conv1. Epsilon and momentum are those of section 8.5.2.
        Conv2d("conv1", channels=6, kernel=5, activation=None),
        BatchNorm("bn1", epsilon=1e-5, momentum=0.1, activation="sigmoid"),
        AvgPool2d("pool1", kernel=2, stride=2),
        Conv2d("conv2", channels=16, kernel=5, activation=None),
        BatchNorm("bn2", epsilon=1e-5, momentum=0.1, activation="sigmoid"),
        AvgPool2d("pool2", kernel=2, stride=2),
        Flatten("flatten"),
        Dense("fc3", units=120),
        BatchNorm("bn3", epsilon=1e-5, momentum=0.1, activation="sigmoid"),
        Dense("fc4", units=84),
        BatchNorm("bn4", epsilon=1e-5, momentum=0.1, activation="sigmoid"),
        Dense("fc5", units=10),
    ),
    source="Dive into Deep Learning, section 8.5 (after Ioffe and Szegedy 2015)",
    learning_rate=0.1,  # section 8.5.4, there with batches of 128
)

# Dive into Deep Learning, section 8.1.5, exercise 2.1; the numbers are ours. AlexNet is made for photographs of 1000
# classes; ten kinds of garments in gray need fewer filters, but filters of the same reach. So kernels, strides,
# paddings and poolings are AlexNet's, conv1 has half its channels, the others three eighths (all multiples of 16, as
# vector units like them), and fc6 and fc7 a quarter of its units. A training step takes 466 million
# multiply-accumulates per image instead of 2.78 billion; the network has 4.1 million parameters instead of 46.8. Its
# learning rate is AlexNet's (docs/readers/exercises.md).
ALEXNET_SLIM = _alexnet("alexnet-slim", "Dive into Deep Learning, section 8.1.5, exercise 2.1",
                        channels=(48, 96, 144, 144, 96), units=1024)

ALEXNET_28 = Network(
    name="alexnet-28",
    input=(1, 28, 28),  # Fashion-MNIST as it is
    layers=(
        # Dive into Deep Learning, section 8.1.5, exercise 2.2; the numbers are ours. Upsampling adds pixels and no
        # information, but takes most of AlexNet's 938 million multiply-accumulates per image. The five convolutions,
        # three poolings, two hidden dense layers and dropout are AlexNet's. The kernels fit 28x28 pixels: AlexNet's
        # 11x11 cover one and a half pixels of the original. Two convolutions come before the first pooling, so that
        # it pools edges, not pixels. Channels double where the number of pixels falls to a quarter. The network takes
        # 23 million multiply-accumulates, a fortieth of AlexNet's.
        Conv2d("conv1", channels=32, kernel=3, padding=1),
        Conv2d("conv2", channels=32, kernel=3, padding=1),
        MaxPool2d("pool2", kernel=2, stride=2),
        Conv2d("conv3", channels=64, kernel=3, padding=1),
        Conv2d("conv4", channels=64, kernel=3, padding=1),
        MaxPool2d("pool4", kernel=2, stride=2),
        Conv2d("conv5", channels=128, kernel=3, padding=1),
        MaxPool2d("pool5", kernel=3, stride=2),
        *_dense(512, 256, 10),
    ),
    source="Dive into Deep Learning, section 8.1.5, exercise 2.2",
    learning_rate=0.1,  # ours: the best of 0.03, 0.1 and 0.3 on held-out training images (docs/readers/exercises.md)
)

_ROUNDED_UP = ((0, 1), (0, 1))
"""Padding below and to the right: a pooling of 3x3 with stride 2 then gives half the height and width."""

def _normalized(number: int, channels: int) -> tuple[Layer, Layer]:
    """Return a convolution of 5x5 with a batch normalization before its ReLU."""
    return (Conv2d(f"conv{number}", channels=channels, kernel=5, padding=2, bias=False, activation=None),
            BatchNorm(f"bn{number}", epsilon=1e-5, momentum=0.1, activation="relu"))


ALEXNET_CIFAR = Network(
    name="alexnet-cifar",
    input=(3, 32, 32),  # CIFAR-10 as it is
    layers=(
        # The layers are those of Krizhevsky's cuda-convnet, layers-80sec.cfg: three convolutions of 5x5, the first
        # pooled by maxima, the others by means over the pixels of the image, and two dense layers. Its poolings round
        # sizes up. Batch normalization is ours: with it two epochs are enough for 66 % of the test images, without it
        # for 49 %. It has the biases, so the convolutions have none.
        *_normalized(1, 32),
        MaxPool2d("pool1", kernel=3, stride=2, padding=_ROUNDED_UP),
        *_normalized(2, 32),
        AvgPool2d("pool2", kernel=3, stride=2, padding=_ROUNDED_UP),
        *_normalized(3, 64),
        AvgPool2d("pool3", kernel=3, stride=2, padding=_ROUNDED_UP),
        Flatten("flatten"),
        Dense("fc4", units=64, activation="relu"),
        Dense("fc5", units=10),
    ),
    source="Krizhevsky's cuda-convnet, layers-80sec.cfg, with batch normalization",
    learning_rate=0.1,
)

NETWORKS = {network.name: network for network in (
    ALEXNET, *TABS.values(), ALEXNET_2012, ALEXNET_OWT, ALEXNET_CAFFE, CAFFENET, LENET5, LENET5_RELU, LENET5_BN,
    ALEXNET_SLIM, ALEXNET_28, ALEXNET_CIFAR)}
"""The networks by name."""


def get_network(name: str) -> Network:
    """Return the network of that name.

    Raises:
        SpecError: if the name is unknown; lists the known ones.
    """
    if name == TAB:
        raise SpecError(f"network {TAB} differs between backends; "
                        f"name one of {', '.join(tab.name for tab in TABS.values())}")
    if name not in NETWORKS:
        raise SpecError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    return NETWORKS[name]


def name_in_backend(name: str, backend: str) -> str:
    """Return the name of the network that a backend compares: its own tab for `alexnet-tab`, else the name itself.

    Raises:
        SpecError: if the backend has no tab; lists those that have one.
    """
    if name != TAB:
        return name
    tab = "torch" if backend == "numpy" else backend  # the reference uses PyTorch's, with the default network's layers
    if tab not in TABS:
        raise SpecError(f"network {TAB}: {backend} has no tab; {', '.join(TABS)} have one")
    return TABS[tab].name
