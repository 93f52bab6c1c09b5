"""The pure functions of training: a training step and the evaluation of a split."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir.state import TrainState, Window
from sparsejax.experiment.step import augment
from sparsejax.internal.streams import DROPOUT, NOISE, stream


class Arrays(NamedTuple):
  """A split on the devices."""

  images: jax.Array  # NHWC or, for a text, (windows, bytes); uint8
  labels: jax.Array  # one for each image, or for each byte; int32


def put_on_devices(split: Any) -> Arrays:
  """Puts the images and labels of a whole split on every device, as uint8 and int32."""
  return Arrays(*parallel.replicate(split))


class Preprocessing(NamedTuple):
  """Turns uint8 images, or windows of a text, into the network's input."""

  mean: tuple[float, ...] | np.ndarray  # by channel or as a whole image, for pixels in [0, 1]
  std: tuple[float, ...]
  crop_padding: int = 0  # pixels; training only
  flip: bool = False  # training only
  cutout: int = 0  # side in pixels; training only

  def train(self, keys: jax.Array, images: jax.Array) -> jax.Array:
    augmented = augment.augment(keys, images, crop_padding=self.crop_padding, flip=self.flip)
    if not self.cutout:
      return self.evaluate(augmented)
    own = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, 2)  # `augment` takes 0 and 1
    return augment.cutout(own, self.evaluate(augmented), self.cutout)

  def evaluate(self, images: jax.Array) -> jax.Array:
    return augment.normalise(images, self.mean, self.std)


def cross_entropy(logits: jax.Array, labels: jax.Array, smoothing: float = 0.0) -> jax.Array:
  """Returns the cross-entropy with each smoothed label.

  -sum_k q_k log p_k, with q_k = (1 - smoothing) [k = label] + smoothing / classes

  Args:
    logits: of shape (examples, classes), or (examples, bytes, classes).
    labels: integers, of shape (examples,), or (examples, bytes).
    smoothing: the share of each label that is spread over all classes.

  Returns:
    Nats, in the shape of the labels.

  Example:
    >>> logits = jnp.log(jnp.array([[0.8, 0.2]]))
    >>> [round(float(cross_entropy(logits, jnp.array([0]), s)[0]), 4) for s in (0.0, 0.5)]
    [0.2231, 0.5697]

  Source: Szegedy et al. 2016, https://arxiv.org/abs/1512.00567
  """
  if not smoothing:
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
  one_hot = jax.nn.one_hot(labels, logits.shape[-1])
  return optax.softmax_cross_entropy(logits, optax.smooth_labels(one_hot, smoothing))


def make_train_step(
  model: Any,
  tx: optax.GradientTransformationExtraArgs,
  preprocessing: Preprocessing,
  *,
  batch_size: int,
  steps_per_epoch: int,
  squared_gradients: bool = False,
  label_smoothing: float = 0.0,
) -> Callable[[TrainState, Arrays, jax.Array], TrainState]:
  """Returns step(state, data, order) -> state, which `parallel.train_calls` runs on all devices.

  `order` is the epoch's permutation of the examples; the loss uses the smoothed labels. Gradients,
  BatchNorm's averages and metrics are averaged together over the replicas. The links also get the
  gradient, dense and of the data term only, as the extra argument `grad`. With `squared_gradients`
  they also get the extra argument `mean_squared_grad`, a function that is called, if at all, at a
  mask update.
  """
  share = parallel.per_replica_batch_size(batch_size, 'batch_size')

  def losses(params, batch_stats, images, labels, rngs):
    logits, changed = model.apply(
      {'params': params, 'batch_stats': batch_stats},
      images,
      train=True,
      mutable=['batch_stats'],
      rngs=rngs,
    )
    loss = cross_entropy(logits, labels, label_smoothing).mean()
    accuracy = jnp.mean(jnp.argmax(logits, -1) == labels)
    return loss, (accuracy, changed.get('batch_stats', {}))

  def step(state: TrainState, data: Arrays, order: jax.Array) -> TrainState:
    epoch, position = jnp.divmod(state.step, steps_per_epoch)
    indices = order[parallel.batch_indices(position * batch_size, share)]
    keys = augment.example_keys(state.key, epoch, indices)
    images = preprocessing.train(keys, data.images[indices])
    rngs = {
      name: parallel.fold_in_replica(jax.random.fold_in(stream(state.key, which), state.step))
      for name, which in (('dropout', DROPOUT), ('noise', NOISE))
    }
    (loss, (accuracy, batch_stats)), grad = jax.value_and_grad(losses, has_aux=True)(
      state.params, state.batch_stats, images, data.labels[indices], rngs
    )
    grad, batch_stats, loss, accuracy = parallel.join((grad, batch_stats, loss, accuracy))
    extra = {'grad': grad}
    if squared_gradients:
      extra['mean_squared_grad'] = lambda: parallel.join(
        mean_squared_gradient(model, state, images, data.labels[indices], label_smoothing)
      )
    updates, opt_state = tx.update(grad, state.opt_state, state.params, **extra)
    return state._replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      window=_add(state.window, state.step, loss, accuracy),
    )

  return step


def mean_squared_gradient(
  model: Any,
  state: TrainState,
  images: jax.Array,
  labels: jax.Array,
  label_smoothing: float = 0.0,
):
  """Returns the mean over the examples of their squared gradients.

  BatchNorm uses its running averages, since a single example has no moments. Only eight examples'
  gradients are held at a time; for a batch of 128, resnet50's would take 12 GB.
  """

  def loss(params, image, label):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    logits = model.apply(variables, image[None], train=False)
    return cross_entropy(logits, label[None], label_smoothing).mean()

  def add(total, example):
    grad = jax.vmap(jax.grad(loss), in_axes=(None, 0, 0))(state.params, *example)
    return jax.tree.map(lambda t, g: t + jnp.sum(jnp.square(g), 0), total, grad), None

  count = len(labels)
  chunk = math.gcd(count, 8)
  chunks = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), (images, labels))
  total, _ = jax.lax.scan(add, jax.tree.map(jnp.zeros_like, state.params), chunks)
  return jax.tree.map(lambda t: t / count, total)


def _add(window: Window, step, loss, accuracy) -> Window:
  is_first_bad = (window.bad_step < 0) & ~jnp.isfinite(loss)
  return Window(
    steps=window.steps + 1,
    loss=window.loss + loss,
    accuracy=window.accuracy + accuracy,
    bad_step=jnp.where(is_first_bad, step, window.bad_step),
  )


def make_evaluation(model: Any, preprocessing: Preprocessing, *, batch_size: int) -> Callable:
  """Returns evaluate(params, batch_stats, arrays) -> (mean loss, accuracy), on the device.

  Batches are rounded up to a multiple of the devices. The last batch is padded, and the padding is
  left out of the sums, so every label counts once, whatever the batch size and the devices.
  """
  share = -(-batch_size // parallel.device_count())
  batch_size = share * parallel.device_count()

  def sums(variables, data, start):
    indices = parallel.batch_indices(start, share)
    is_real = indices < len(data.labels)
    indices = jnp.minimum(indices, len(data.labels) - 1)
    images = preprocessing.evaluate(data.images[indices])
    logits = model.apply(variables, images, train=False)
    labels = data.labels[indices]
    loss = cross_entropy(logits, labels)
    real = is_real.reshape(-1, *(1,) * (labels.ndim - 1))
    correct = jnp.argmax(logits, -1) == labels
    return parallel.total((jnp.sum(loss * real), jnp.sum(correct & real)))

  sums_on_all = parallel.map_replicas(sums)

  def evaluate(params, batch_stats, data: Arrays):
    variables = {'params': params, 'batch_stats': batch_stats}
    parts = [
      sums_on_all(variables, data, start) for start in range(0, len(data.labels), batch_size)
    ]
    loss, correct = jax.tree.map(lambda *part: sum(part) / data.labels.size, *parts)
    return loss, correct

  return evaluate
