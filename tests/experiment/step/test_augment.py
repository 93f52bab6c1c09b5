"""Augmentation: hand-worked crops and flips, and bits that belong to the example alone."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sparsejax.experiment.step import augment

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

KEY = jax.random.key(0)


def _images(batch: int, size: int = 6) -> jax.Array:
  values = np.random.default_rng(0).integers(1, 256, (batch, size, size, 2), dtype=np.uint8)
  return jnp.asarray(values)


def test_crop_at_known_offsets():
  image = jnp.array([[1, 2, 3], [4, 5, 6], [7, 8, 9]], jnp.uint8).reshape(1, 3, 3, 1)
  expected = {
    (0, 0): [[0, 0, 0], [0, 1, 2], [0, 4, 5]],
    (1, 1): [[1, 2, 3], [4, 5, 6], [7, 8, 9]],
    (2, 2): [[5, 6, 0], [8, 9, 0], [0, 0, 0]],
    (1, 2): [[2, 3, 0], [5, 6, 0], [8, 9, 0]],
  }
  for offset, rows in expected.items():
    out = augment.crop_images(jnp.array([offset]), image, 1)
    np.testing.assert_array_equal(out[0, :, :, 0], rows)
    assert out.dtype == jnp.uint8


def test_every_offset_of_the_crop_occurs_about_equally_often():
  # One bright pixel in the middle of a 3x3 image shows where the crop moved it.
  image = jnp.zeros((1, 3, 3, 1), jnp.uint8).at[0, 1, 1, 0].set(255)
  keys = augment.example_keys(KEY, 0, jnp.arange(9_000))
  out = augment.random_crop(keys, jnp.tile(image, (9_000, 1, 1, 1)), 1)
  assert (out.sum((1, 2, 3)) == 255).all()
  counts = np.asarray((out[..., 0] == 255).sum(0))
  assert (np.abs(counts - 1_000) < 5 * np.sqrt(1_000 * 8 / 9)).all(), counts


def test_crop_shifts_and_pads_with_zeros_only():
  images = _images(64)
  out = augment.random_crop(augment.example_keys(KEY, 0, jnp.arange(64)), images, 4)
  padded = np.pad(images, ((0, 0), (4, 4), (4, 4), (0, 0)))
  for image, field in zip(np.asarray(out), padded, strict=True):
    windows = [field[i : i + 6, j : j + 6] for i in range(9) for j in range(9)]
    assert any(np.array_equal(image, window) for window in windows)


def test_crop_without_padding_returns_the_images_and_negative_padding_raises():
  images, keys = _images(2), augment.example_keys(KEY, 0, jnp.arange(2))
  np.testing.assert_array_equal(augment.random_crop(keys, images, 0), images)
  with pytest.raises(ValueError, match='padding=-1 must be 0 or more'):
    augment.random_crop(keys, images, -1)


def test_flip_mirrors_the_width_of_about_half_the_images():
  images = jnp.tile(jnp.arange(4, dtype=jnp.uint8).reshape(1, 2, 2, 1), (1_000, 1, 1, 1))
  out = augment.random_flip(augment.example_keys(KEY, 0, jnp.arange(1_000)), images)[..., 0]
  mirrored = (out == jnp.array([[1, 0], [3, 2]])[None]).all((1, 2))
  kept = (out == jnp.array([[0, 1], [2, 3]])[None]).all((1, 2))
  assert (mirrored ^ kept).all()
  assert abs(int(mirrored.sum()) - 500) < 5 * np.sqrt(250)


def test_an_example_is_augmented_alike_in_any_batch_and_place():
  images = _images(8)
  change = jax.jit(
    lambda indices: augment.augment(
      augment.example_keys(KEY, 3, indices), images[indices], crop_padding=2, flip=True
    )
  )
  whole = change(jnp.arange(8))
  order = jnp.array([5, 0, 7])
  np.testing.assert_array_equal(change(order), whole[order])


def test_augmentation_is_the_same_on_one_device_and_on_four_and_inside_scan():
  images, indices = _images(16), jnp.arange(16)

  def change(indices):
    keys = augment.example_keys(KEY, 3, indices)
    return augment.augment(keys, images[indices], crop_padding=2, flip=True)

  whole = jax.jit(change)(indices)
  assert jax.local_device_count() == 4
  np.testing.assert_array_equal(jax.pmap(change)(indices.reshape(4, 4)).reshape(whole.shape), whole)
  _, scanned = jax.lax.scan(lambda carry, i: (carry, change(i)), 0, indices.reshape(2, 8))
  np.testing.assert_array_equal(scanned.reshape(whole.shape), whole)


def test_keys_differ_between_examples_epochs_and_seeds():
  keys = [
    augment.example_keys(jax.random.key(seed), epoch, jnp.arange(50))
    for seed in (0, 1)
    for epoch in (0, 1)
  ]
  data = np.concatenate([jax.random.key_data(key) for key in keys])
  assert len({tuple(row) for row in data.tolist()}) == 200


def test_turning_the_flip_on_leaves_the_crop_as_it_was():
  images, keys = _images(64), augment.example_keys(KEY, 0, jnp.arange(64))
  crop = augment.augment(keys, images, crop_padding=2)
  both = augment.augment(keys, images, crop_padding=2, flip=True)
  same = (both == crop).all((1, 2, 3))
  mirrored = (both == crop[:, :, ::-1]).all((1, 2, 3))
  assert (same | mirrored).all()
  assert same.any()
  assert mirrored.any()


def test_nothing_is_changed_by_default():
  images = _images(3)
  out = augment.augment(augment.example_keys(KEY, 0, jnp.arange(3)), images)
  np.testing.assert_array_equal(out, images)


def test_a_square_is_cut_out_around_every_pixel_about_equally_often():
  # Of side 2, around a centre r: the rows r - 1 and r. Of side 3: r - 1 to r + 1.
  keys = augment.example_keys(KEY, 0, jnp.arange(4_000))
  for size, fewest in ((2, 1), (3, 4)):
    out = augment.cutout(keys, jnp.ones((4_000, 4, 4, 2)), size)
    np.testing.assert_array_equal(out[..., 0], out[..., 1])
    gone = np.asarray(out[..., 0] == 0)
    counts = gone.sum((1, 2))
    assert (counts.min(), counts.max()) == (fewest, size * size)
    assert (gone.any(2).sum(1) * gone.any(1).sum(1) == counts).all(), 'a rectangle'
  # The corner's pixel is cut where the centre is it or, of side 3, one of its three neighbours.
  assert gone[:, 0, 0].mean() == pytest.approx(4 / 16, abs=0.03)
  assert gone[:, 1, 1].mean() == pytest.approx(9 / 16, abs=0.03)


def test_nothing_is_cut_out_by_default_and_no_side_is_negative():
  images = jnp.ones((2, 4, 4, 1))
  keys = augment.example_keys(KEY, 0, jnp.arange(2))
  assert augment.cutout(keys, images, 0) is images
  with pytest.raises(ValueError, match='size=-1 must be 0 or more'):
    augment.cutout(keys, images, -1)


def test_normalise_by_hand():
  images = jnp.array([[0, 255], [51, 102]], jnp.uint8).reshape(2, 1, 1, 2)
  out = augment.normalise(images, (0.5, 0.0), (0.5, 2.0))
  assert out.dtype == jnp.float32
  np.testing.assert_allclose(out.reshape(2, 2), [[-1, 0.5], [-0.6, 0.2]], rtol=1e-6)


def test_normalise_takes_numbers_and_whole_images():
  images = jnp.array([[0, 255], [255, 0]], jnp.uint8).reshape(2, 1, 2, 1)
  out = augment.normalise(images, 0.5, 0.5)  # 2 x - 1
  np.testing.assert_array_equal(out.reshape(2, 2), [[-1, 1], [1, -1]])
  mean = images.astype(jnp.float32).mean(0) / 255
  np.testing.assert_array_equal(
    augment.normalise(images, mean, 1.0).reshape(2, 2), [[-0.5, 0.5], [0.5, -0.5]]
  )


def test_normalise_can_give_the_byte_over_256_less_the_mean():
  images = jnp.array([0, 64, 128, 255], jnp.uint8).reshape(4, 1, 1, 1)
  out = augment.normalise(images, 256 / 255 * 0.25, 256 / 255)
  np.testing.assert_allclose(out.ravel(), [-0.25, 0, 0.25, 255 / 256 - 0.25], atol=1e-7)


def test_normalise_refuses_what_is_scaled_already():
  with pytest.raises(ValueError, match='images are float32; they must be uint8'):
    augment.normalise(jnp.ones((1, 2, 2, 1)), 0.5, 0.5)


def test_an_epoch_visits_every_example_once_in_an_order_of_its_own():
  order = functools.partial(augment.epoch_permutation, n=100)
  orders = [order(jax.random.key(seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
  assert len({tuple(o.tolist()) for o in orders}) == 4
  for o in orders:
    assert o.dtype == jnp.int32
    np.testing.assert_array_equal(np.sort(o), np.arange(100))
  traced = jax.jit(order)(jax.random.key(1), jnp.int32(1))
  np.testing.assert_array_equal(traced, orders[3])


def test_places_in_the_order_are_even():
  firsts = jax.vmap(lambda epoch: augment.epoch_permutation(KEY, epoch, 5)[0])(jnp.arange(5_000))
  counts = np.bincount(firsts, minlength=5)
  assert (np.abs(counts - 1_000) < 5 * np.sqrt(800)).all(), counts
