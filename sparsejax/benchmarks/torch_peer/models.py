"""The networks of `sparsejax.models` in PyTorch, layer by layer, with our parameter names."""

import functools

import torch
from torch import nn
from torch.nn import functional as F


class Network(nn.Module):
  """A module whose layers have our names and are made in the order in which data pass them."""

  def add(self, name, layer):
    self.add_module(name, layer)
    return layer

  def add_conv(self, name, inputs, outputs, size=3, stride=1, *, bias=False, groups=1):
    padding = size // 2
    conv = nn.Conv2d(inputs, outputs, size, stride, padding, groups=groups, bias=bias)
    return self.add(name, conv)


class ConvBlock(Network):
  """relu(batch_norm(conv(x)))."""

  def __init__(self, inputs, outputs, size=3, stride=1, *, bias=False, norm=True):
    super().__init__()
    self.add_conv('conv', inputs, outputs, size, stride, bias=bias)
    self.add('bn', nn.BatchNorm2d(outputs) if norm else nn.Identity())

  def forward(self, x):
    return F.relu(self.bn(self.conv(x)))


class Classified(Network):
  """A sequence of blocks, then the mean over positions and a dense layer."""

  def __init__(self, blocks, features, num_classes):
    super().__init__()
    for name, block in blocks:
      self.add(name, block)
    self.blocks = [name for name, _ in blocks]
    self.classifier = nn.Linear(features, num_classes)

  def forward(self, x):
    for name in self.blocks:
      x = getattr(self, name)(x)
    return self.classifier(x.mean((2, 3)))


class LeNet300(Network):
  def __init__(self, image_shape, num_classes, width):
    super().__init__()
    height, length, channels = image_shape
    hidden = round(width / 3)
    self.fc1 = nn.Linear(height * length * channels, width)
    self.fc2 = nn.Linear(width, hidden)
    self.fc3 = nn.Linear(hidden, num_classes)

  def forward(self, x):
    return self.fc3(F.relu(self.fc2(F.relu(self.fc1(x.flatten(1))))))


class LeNet5(Network):
  def __init__(self, image_shape, num_classes, width):
    super().__init__()
    height, length, channels = image_shape
    rows, columns = (((size - 4) // 2 - 4) // 2 for size in (height, length))
    middle = round(2.5 * width)
    self.conv1 = nn.Conv2d(channels, width, 5)
    self.conv2 = nn.Conv2d(width, middle, 5)
    self.fc1 = nn.Linear(rows * columns * middle, 25 * width)
    self.fc2 = nn.Linear(25 * width, num_classes)

  def forward(self, x):
    x = F.max_pool2d(self.conv1(x), 2)
    x = F.max_pool2d(self.conv2(x), 2)
    return self.fc2(F.relu(self.fc1(x.flatten(1))))


def vgg16(image_shape, num_classes, width):
  stages = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
  blocks = []
  planes = image_shape[-1]
  for stage, (multiple, convolutions) in enumerate(stages, start=1):
    for index in range(1, convolutions + 1):
      blocks.append((f'block{stage}_{index}', ConvBlock(planes, multiple * width, bias=True)))
      planes = multiple * width
    blocks.append((f'pool{stage}', nn.MaxPool2d(2)))
  return Classified(blocks, planes, num_classes)


def allconv(image_shape, num_classes, width):
  convolutions = (
    *((1, 3, 1), (1, 3, 1), (1, 3, 2), (2, 3, 1), (2, 3, 1)),
    *((2, 3, 2), (2, 3, 1), (2, 1, 1), (2, 1, 1)),
  )
  blocks = []
  planes = image_shape[-1]
  for index, (multiple, size, stride) in enumerate(convolutions, start=1):
    norm = index < len(convolutions)
    block = ConvBlock(planes, multiple * width, size, stride, bias=True, norm=norm)
    blocks.append((f'block{index}', block))
    planes = multiple * width
  return Classified(blocks, planes, num_classes)


class Separable(Network):
  """A depthwise and a pointwise convolution, each followed by BatchNorm and ReLU."""

  def __init__(self, inputs, outputs, stride):
    super().__init__()
    self.add_conv('depthwise', inputs, inputs, 3, stride, groups=inputs)
    self.depthwise_bn = nn.BatchNorm2d(inputs)
    self.add_conv('pointwise', inputs, outputs, 1)
    self.pointwise_bn = nn.BatchNorm2d(outputs)

  def forward(self, x):
    x = F.relu(self.depthwise_bn(self.depthwise(x)))
    return F.relu(self.pointwise_bn(self.pointwise(x)))


def mobilenet(image_shape, num_classes, width):
  outline = ((2, 1), (4, 2), (4, 1), (8, 2), (8, 1), (16, 2), *5 * ((16, 1),), (32, 2), (32, 1))
  blocks = [('block00', ConvBlock(image_shape[-1], width))]
  planes = width
  for index, (multiple, stride) in enumerate(outline, start=1):
    blocks.append((f'block{index:02}', Separable(planes, multiple * width, stride)))
    planes = multiple * width
  return Classified(blocks, planes, num_classes)


# A block's convolutions: (multiple of its planes, kernel, whether it takes the block's stride).
BASIC = ((1, 3, True), (1, 3, False))
BOTTLENECK = ((1, 1, False), (1, 3, True), (4, 1, False))


class Residual(Network):
  """relu(branch(x) + shortcut(x)): the shortcut is a 1x1 convolution where the shape changes."""

  def __init__(self, inputs, planes, stride, branch):
    super().__init__()
    self.depth = len(branch)
    outputs = inputs
    for index, (multiple, size, strided) in enumerate(branch, start=1):
      before, outputs = outputs, multiple * planes
      self.add_conv(f'conv{index}', before, outputs, size, stride if strided else 1)
      self.add(f'bn{index}', nn.BatchNorm2d(outputs))
    self.outputs = outputs
    self.changes = stride > 1 or outputs != inputs
    if self.changes:
      self.add_conv('shortcut', inputs, outputs, 1, stride)
      self.shortcut_bn = nn.BatchNorm2d(outputs)

  def forward(self, x):
    y = x
    for index in range(1, self.depth + 1):
      y = F.relu(y) if index > 1 else y
      y = getattr(self, f'bn{index}')(getattr(self, f'conv{index}')(y))
    return F.relu(y + (self.shortcut_bn(self.shortcut(x)) if self.changes else x))


def resnet(image_shape, num_classes, width, *, depths, branch=BASIC):
  blocks = [('block0', ConvBlock(image_shape[-1], width))]
  planes = width
  for stage, depth in enumerate(depths):
    for index in range(depth):
      stride = 2 if stage > 0 and index == 0 else 1
      block = Residual(planes, width * 2**stage, stride, branch)
      blocks.append((f'block{stage + 1}_{index + 1}', block))
      planes = block.outputs
  return Classified(blocks, planes, num_classes)


MODELS = {
  'allconv': allconv,
  'lenet300': LeNet300,
  'lenet5': LeNet5,
  'mobilenet': mobilenet,
  'resnet18': functools.partial(resnet, depths=(2, 2, 2, 2)),
  'resnet20': functools.partial(resnet, depths=(3, 3, 3)),
  'resnet50': functools.partial(resnet, depths=(3, 4, 6, 3), branch=BOTTLENECK),
  'resnet56': functools.partial(resnet, depths=(9, 9, 9)),
  'vgg16': vgg16,
}


def layers(model: torch.nn.Module) -> dict[str, list[int]]:
  """Returns the shape of every parameter, by its name."""
  return {name: list(parameter.shape) for name, parameter in model.named_parameters()}
