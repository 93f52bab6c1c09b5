"""Shuffling, augmentation and normalisation: pure functions, run on the device inside the step.

Every random bit comes from (seed, epoch, example index). The example's batch, its place there, and
the number of devices change nothing, so that a run can be resumed anywhere and compared between
machines.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from sparsejax.internal.streams import EXAMPLES, ORDER, stream


def epoch_permutation(key: jax.Array, epoch: ArrayLike, n: int) -> jax.Array:
  """Returns the order in which an epoch visits the n examples: a permutation of 0, ..., n - 1.

  Args:
    key: the seed's key, one for the whole run.
    epoch: the number of the epoch, traced or not.
    n: the number of examples.

  Returns:
    int32 indices of shape (n,).

  Example:
    >>> sorted(epoch_permutation(jax.random.key(0), 7, 5).tolist())
    [0, 1, 2, 3, 4]
  """
  key = jax.random.fold_in(stream(key, ORDER), epoch)
  return jax.random.permutation(key, jnp.arange(n, dtype=jnp.int32))


def example_keys(key: jax.Array, epoch: ArrayLike, indices: jax.Array) -> jax.Array:
  """Returns one key for each example, a function of the seed, the epoch and its index alone.

  Args:
    key: the seed's key, one for the whole run.
    epoch: the number of the epoch, traced or not.
    indices: the examples' places in the training set, of shape (batch,).

  Returns:
    Keys of shape (batch,).

  Example:
    >>> one, both = (example_keys(jax.random.key(0), 7, jnp.array(i)) for i in ([3], [8, 3]))
    >>> bool(one[0] == both[1])
    True
  """
  key = jax.random.fold_in(stream(key, EXAMPLES), epoch)
  return jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, indices)


def random_crop(keys: jax.Array, images: jax.Array, padding: int = 4) -> jax.Array:
  """Shifts each image by up to `padding` pixels along both axes, with zeros entering at the edges.

  out[i, j] = image[i + di - padding, j + dj - padding], zero outside; di, dj ~ U{0, ..., 2 padding}

  Zero is black here: the crop belongs before `normalise`, after which zero would be the mean.

  Args:
    keys: one for each image, of shape (batch,).
    images: of shape (batch, height, width, channels), any dtype.
    padding: pixels on each side; 0 returns the images.

  Returns:
    Images of the same shape and dtype.

  Raises:
    ValueError: padding is negative.
  """
  if padding < 0:
    raise ValueError(f'padding={padding} must be 0 or more')
  if padding == 0:
    return images
  offsets = jax.vmap(lambda key: jax.random.randint(key, (2,), 0, 2 * padding + 1))(keys)
  return crop_images(offsets, images, padding)


def crop_images(offsets: jax.Array, images: jax.Array, padding: int) -> jax.Array:
  """Pads each image with zeros and cuts it out at its offset (down, right), of shape (batch, 2).

  Example:
    >>> image = jnp.array([[1, 2], [3, 4]], jnp.uint8).reshape(1, 2, 2, 1)
    >>> crop_images(jnp.array([[0, 1]]), image, 1)[0, :, :, 0]  # one row down, no column
    Array([[0, 0],
           [1, 2]], dtype=uint8)
  """
  padded = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))

  # The gather that this becomes takes 0.09 ms on CPU for 128 images of 32x32x3. Two take_along_axis
  # take 0.20 ms, one-hot products 0.58, a select over the nine shifts of each axis 6.
  def cut(image, offset):
    return jax.lax.dynamic_slice(image, (offset[0], offset[1], 0), images.shape[1:])

  return jax.vmap(cut)(padded, offsets)


def random_flip(keys: jax.Array, images: jax.Array) -> jax.Array:
  """Mirrors each image left to right with probability 1/2.

  Args:
    keys: one for each image, of shape (batch,).
    images: of shape (batch, height, width, channels), any dtype.

  Returns:
    Images of the same shape and dtype.
  """
  mirrored = jax.vmap(jax.random.bernoulli)(keys)
  return jnp.where(mirrored[:, None, None, None], images[:, :, ::-1], images)


def cutout(keys: jax.Array, images: jax.Array, size: int) -> jax.Array:
  """Sets a square of each image to zero, at a place drawn at random.

  out[i, j] = 0 where 0 <= i - r + size // 2 < size and 0 <= j - c + size // 2 < size,
  r ~ U{0, ..., height - 1}, c ~ U{0, ..., width - 1}. At the edges part of the square is cut off.

  The images must be normalised already, so that zero is the mean.

  Args:
    keys: one for each image, of shape (batch,).
    images: of shape (batch, height, width, channels), float.
    size: side of the square in pixels; 0 returns the images.

  Returns:
    Images of the same shape and dtype.

  Raises:
    ValueError: size is negative.

  Example:
    >>> cut = cutout(jax.random.split(jax.random.key(0), 1), jnp.ones((1, 4, 4, 1)), 1)
    >>> int(cut.sum())  # one pixel of 16 is gone
    15

  Source: DeVries and Taylor 2017, https://arxiv.org/abs/1708.04552
  """
  if size < 0:
    raise ValueError(f'size={size} must be 0 or more')
  if size == 0:
    return images
  sides = images.shape[1:3]

  def cut(key, image):
    centre = jax.random.randint(key, (2,), 0, jnp.array(sides))
    rows, columns = (
      (jnp.arange(side) >= c - size // 2) & (jnp.arange(side) < c - size // 2 + size)
      for side, c in zip(sides, centre, strict=True)
    )
    return jnp.where(rows[:, None, None] & columns[None, :, None], 0, image)

  return jax.vmap(cut)(keys, images)


def augment(
  keys: jax.Array, images: jax.Array, *, crop_padding: int = 0, flip: bool = False
) -> jax.Array:
  """Applies `random_crop`, then `random_flip`; the defaults do nothing.

  Each draws from its own key, so that turning one off does not change the other's draws.

  Args:
    keys: one for each image, as `example_keys` gives them, of shape (batch,).
    images: of shape (batch, height, width, channels), any dtype, not yet normalised.
    crop_padding: pixels of zero padding; 0 crops nothing.
    flip: whether to mirror images.

  Returns:
    Images of the same shape and dtype.
  """
  fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
  if crop_padding:
    images = random_crop(fold(keys, 0), images, crop_padding)
  if flip:
    images = random_flip(fold(keys, 1), images)
  return images


def normalise(
  images: jax.Array, mean: ArrayLike | Sequence[float], std: ArrayLike | Sequence[float]
) -> jax.Array:
  """Scales bytes to the unit interval and standardises them: (x / 255 - mean) / std, in float32.

  mean and std are one number per channel, or whole images: any shape that matches the last axes of
  the images. (0.5, 0.5) gives 2 x - 1; (256/255 m, 256/255) gives x / 256 - m on bytes.

  Args:
    images: uint8, of shape (..., height, width, channels), or windows of bytes.
    mean: the mean of pixels in [0, 1].
    std: the standard deviation of pixels in [0, 1]; it must not be zero.

  Returns:
    float32 of the images' shape.

  Raises:
    ValueError: the images are not bytes; floats have probably been scaled already.

  Example:
    >>> normalise(jnp.array([0, 255], jnp.uint8).reshape(2, 1, 1, 1), (0.5,), (0.25,)).ravel()
    Array([-2.,  2.], dtype=float32)
  """
  if images.dtype != jnp.uint8:
    raise ValueError(f'images are {images.dtype}; they must be uint8')
  mean, std = (jnp.asarray(x, jnp.float32) for x in (mean, std))
  # The missing leading axes are added by hand, because the project forbids silent rank promotion.
  mean, std = (x.reshape((1,) * (images.ndim - x.ndim) + x.shape) for x in (mean, std))
  return (images.astype(jnp.float32) / 255 - mean) / std
