"""A training step in PyTorch that does what ours does, in PyTorch's variants."""

import pathlib
import time

import models
import torch
from torch.nn import functional as F

LAYOUTS = {'contiguous': torch.contiguous_format, 'channels_last': torch.channels_last}
VARIANTS = tuple(f'{way}_{layout}' for way in ('eager', 'compiled') for layout in LAYOUTS)


class Data:
  """The training split on the device, and batches of it in random order, augmented.

  Args:
    settings: the result of `sparsejax.benchmarks.peer.request`.
  """

  def __init__(self, settings):
    folder = pathlib.Path(settings['folder'])
    shape = settings['image_shape']
    images = torch.frombuffer(bytearray((folder / 'images').read_bytes()), dtype=torch.uint8)
    labels = torch.frombuffer(bytearray((folder / 'labels').read_bytes()), dtype=torch.int64)
    self.device, self.batch_size = settings['device'], settings['batch_size']
    self.images = images.reshape(-1, *shape).to(self.device)  # NHWC
    self.labels = labels.to(self.device)
    self.order = torch.randperm(len(labels), device=self.device)
    self.padding, self.flip = settings['crop_padding'], settings['flip']
    self.position = 0

  def batch(self):
    """Returns the next images, in uint8 and NHWC, and their labels."""
    if self.position + self.batch_size > len(self.labels):
      self.position = 0
    indices = self.order[self.position : self.position + self.batch_size]
    self.position += self.batch_size
    images = self.images[indices]
    if self.padding:
      images = self._crop(images)
    if self.flip:
      mirrored = torch.rand(len(images), device=self.device) < 0.5
      images = torch.where(mirrored[:, None, None, None], images.flip(2), images)
    return images, self.labels[indices]

  def _crop(self, images):
    count, height, width, _ = images.shape
    starts = torch.randint(0, 2 * self.padding + 1, (2, count, 1), device=self.device)
    rows = starts[0] + torch.arange(height, device=self.device)
    columns = starts[1] + torch.arange(width, device=self.device)
    padded = F.pad(images, (0, 0, *4 * (self.padding,)))
    examples = torch.arange(count, device=self.device)[:, None, None]
    return padded[examples, rows[:, :, None], columns[:, None, :]]


class Training:
  """One of `VARIANTS`, with its own model and optimizer."""

  def __init__(self, settings, data, variant):
    way, layout = variant.split('_', 1)
    self.data, self.layout = data, LAYOUTS[layout]
    self.model = build(settings).to(data.device, memory_format=self.layout)
    self.autocast = torch.autocast(
      data.device, torch.bfloat16, enabled=settings['dtype'] == 'bfloat16'
    )
    self.mean, self.std = (
      torch.tensor(settings[key], device=data.device) for key in ('mean', 'std')
    )
    parameters = self.model.parameters()
    self.optimizer = torch.optim.SGD(parameters, **settings['optimizer'], fused=True)
    self.loss = torch.compile(self._loss) if way == 'compiled' else self._loss

  def _loss(self, images, labels):
    inputs = (images.float() / 255 - self.mean) / self.std
    inputs = inputs.permute(0, 3, 1, 2).contiguous(memory_format=self.layout)
    with self.autocast:
      logits = self.model(inputs)
    return F.cross_entropy(logits.float(), labels)

  def run(self, steps):
    """Makes `steps` steps and returns the seconds they took."""
    self._wait()
    begun = time.perf_counter()
    for _ in range(steps):
      self.loss(*self.data.batch()).backward()
      self.optimizer.step()
      self.optimizer.zero_grad()
    self._wait()
    return time.perf_counter() - begun

  def _wait(self):
    if self.data.device == 'cuda':
      torch.cuda.synchronize()


def build(settings):
  """Returns the network that the settings name."""
  make = models.MODELS[settings['model']]
  return make(settings['image_shape'], settings['num_classes'], settings['width'])


def prepare(settings):
  """Sets PyTorch up like JAX: its threads and, on a GPU, float32 products of lower precision."""
  torch.set_num_threads(settings['threads'])
  torch.backends.cudnn.benchmark = True
  torch.set_float32_matmul_precision('high')
