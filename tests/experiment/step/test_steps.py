"""One step on four devices: the full batch's gradient, joined state, and sums worked by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from sparsejax import models
from sparsejax.experiment.machine import parallel
from sparsejax.experiment.rundir.state import better, initial
from sparsejax.experiment.step import augment, steps
from sparsejax.models.resnet import ResNet

pytestmark = pytest.mark.usefixtures('compiling_is_quick')

BYTES = steps.Preprocessing((0.0,), (1 / 255,))  # the network sees the byte itself
PASS = optax.with_extra_args_support(optax.identity())
BATCH, EXAMPLES = 8, 20  # two steps an epoch; four examples of each epoch are left out


def examples(channels=1, size=8, classes=3):
  rng = np.random.default_rng(0)
  images = rng.integers(0, 256, (EXAMPLES, size, size, channels), dtype=np.uint8)
  return steps.Arrays(jnp.asarray(images), jnp.asarray(rng.integers(0, classes, EXAMPLES)))


def begin(model, tx, images, seed=0):
  init = functools.partial(jax.jit, static_argnames='train')(model.init)
  variables = init(jax.random.key(seed), jnp.zeros(images[:1].shape), train=False)
  return parallel.replicate(initial(variables, tx, seed).train)


def make_step(model, tx, preprocessing):
  """A step as the trainer makes it: two steps an epoch, on all four devices."""
  assert jax.local_device_count() == 4
  step = steps.make_train_step(
    model, tx, preprocessing, batch_size=BATCH, steps_per_epoch=EXAMPLES // BATCH
  )
  return parallel.map_replicas(step)


def place(state, data, order):
  return state, parallel.replicate(data), parallel.replicate(order)


def probe():
  """Changes nothing and keeps the extra argument `grad` in its state."""

  def init_fn(params):
    return jax.tree.map(jnp.zeros_like, params)

  def update_fn(updates, state, params=None, *, grad, **extra_args):
    return updates, grad

  return optax.GradientTransformationExtraArgs(init_fn, update_fn)


def batch_of(step, order):
  position = step % 2
  return order[position * BATCH : (position + 1) * BATCH]


def assert_shards_are_equal(tree):
  for leaf in jax.tree.leaves(tree):
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
      leaf = jax.random.key_data(leaf)
    shards = [np.asarray(shard.data) for shard in leaf.addressable_shards]
    assert len(shards) == 4
    for shard in shards:
      assert shard.shape == leaf.shape
      assert shard.tobytes() == shards[0].tobytes()


def assert_close(found, expected, rtol=1e-5, atol=1e-7):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol, atol), found, expected)


def test_three_steps_on_four_devices_are_three_full_batch_steps_by_hand():
  preprocessing = steps.Preprocessing((0.4,), (0.2,), crop_padding=2, flip=True)
  data, model = examples(), models.create('lenet300', 3, width=6)
  # The probe stands behind what changes the updates, and still sees the raw mean gradient.
  tx = optax.chain(optax.add_decayed_weights(0.5), optax.scale(-0.1), probe())
  step, state = make_step(model, tx, preprocessing), begin(model, tx, data.images)
  params, expected_loss, expected_accuracy = state.params, 0.0, 0.0

  def loss_of(params, images, labels):
    logits = model.apply({'params': params}, images, train=True)
    losses = -jax.nn.log_softmax(logits)[jnp.arange(BATCH), labels]
    return losses.mean(), (logits.argmax(-1) == labels).mean()

  gradient = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
  for t in range(3):  # the third is in the second epoch
    epoch = t // 2
    order = augment.epoch_permutation(state.key, epoch, EXAMPLES)
    indices = batch_of(t, order)
    keys = augment.example_keys(state.key, epoch, indices)
    images = preprocessing.train(keys, data.images[indices])
    (loss, accuracy), grad = gradient(params, images, data.labels[indices])
    params = jax.tree.map(lambda p, g: p - 0.1 * (g + 0.5 * p), params, grad)
    expected_loss, expected_accuracy = expected_loss + loss, expected_accuracy + accuracy
    state = step(*place(state, data, order))
    assert_close(state.opt_state[-1], grad, rtol=1e-4, atol=1e-6)
    assert_close(state.params, params, rtol=1e-4, atol=1e-6)
  assert int(state.step) == int(state.window.steps) == 3
  assert float(state.window.loss) == pytest.approx(float(expected_loss), rel=1e-5)
  assert float(state.window.accuracy) == pytest.approx(float(expected_accuracy), rel=1e-5)
  assert int(state.window.bad_step) == -1
  assert_shards_are_equal(state)


def squares_when_called():
  """Changes nothing and keeps what the extra argument `mean_squared_grad` makes when called."""

  def update_fn(updates, state, params=None, *, mean_squared_grad, **extra_args):
    return updates, mean_squared_grad()

  return optax.GradientTransformationExtraArgs(probe().init, update_fn)


def naive_mean_of_squares(model, state, images, labels):
  """The mean of squared gradients, one example after the other, with the running averages."""

  @jax.jit
  def squares(params, image, label):
    def loss(params):
      variables = {'params': params, 'batch_stats': state.batch_stats}
      logits = model.apply(variables, image[None], train=False)
      return -jax.nn.log_softmax(logits)[0, label]

    return jax.tree.map(jnp.square, jax.grad(loss)(params))

  found = [squares(state.params, *example) for example in zip(images, labels, strict=True)]
  return jax.tree.map(lambda *parts: sum(parts) / len(parts), *found)


def test_squared_gradients_are_those_of_the_examples_one_by_one():
  """With BatchNorm, on four devices inside the step, through a link that asks for them."""
  model = ResNet(num_classes=3, width=2, depths=(1,))
  preprocessing, data = steps.Preprocessing((0.5,) * 3, (0.25,) * 3), examples(channels=3)
  tx = optax.chain(optax.scale(0.0), squares_when_called())
  state = begin(model, tx, data.images)
  step = steps.make_train_step(
    *(model, tx, preprocessing), batch_size=BATCH, steps_per_epoch=2, squared_gradients=True
  )
  order = augment.epoch_permutation(state.key, 0, EXAMPLES)
  after = parallel.map_replicas(step)(*place(state, data, order))
  batch = batch_of(0, order)
  images, labels = preprocessing.evaluate(data.images[batch]), data.labels[batch]
  expected = naive_mean_of_squares(model, state, images, labels)
  assert_close(after.opt_state[-1], expected, rtol=1e-3, atol=1e-7)
  assert_shards_are_equal(after)


def test_squared_gradients_do_not_depend_on_the_chunks_that_they_are_taken_in():
  count = 12  # three chunks of four
  data, model = examples(), models.create('lenet300', 3, width=6)
  state = begin(model, probe(), data.images)
  images, labels = BYTES.evaluate(data.images[:count]) / 255, data.labels[:count]
  found = jax.jit(functools.partial(steps.mean_squared_gradient, model))(state, images, labels)
  expected = naive_mean_of_squares(model, state, images, labels)
  assert_close(found, expected, rtol=1e-4, atol=1e-9)
  assert max(float(jnp.max(leaf)) for leaf in jax.tree.leaves(found)) > 0


@functools.partial(jax.jit, static_argnums=0)
def moved_averages(model, state, images):
  """BatchNorm's averages after one training pass over these images, on one device."""
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  return model.apply(variables, images, train=True, mutable=['batch_stats'])[1]['batch_stats']


def test_batch_norms_averages_are_the_mean_over_the_replicas_and_all_state_is_joined():
  model = ResNet(num_classes=3, width=2, depths=(1,))
  tx = optax.chain(optax.trace(0.9), optax.scale_by_learning_rate(0.1))
  preprocessing = steps.Preprocessing((0.5,) * 3, (0.25,) * 3)
  data = examples(channels=3)
  before = begin(model, tx, data.images)
  order = augment.epoch_permutation(before.key, 0, EXAMPLES)
  step = make_step(model, tx, preprocessing)
  state = step(*place(before, data, order))
  shares = [
    moved_averages(model, before, preprocessing.evaluate(data.images[share]))
    for share in batch_of(0, order).reshape(4, 2)
  ]
  means = jax.tree.map(lambda *parts: sum(parts) / 4, *shares)
  assert_close(state.batch_stats, means, rtol=1e-4, atol=1e-6)
  assert not np.allclose(*(share['block0']['bn']['mean'] for share in shares[:2]))
  state = step(*place(state, data, order))
  assert_shards_are_equal(state)


def gradient_of_whole(model, state, images, labels):
  """The gradient of the mean loss of a whole batch, on one device."""

  def loss(params):
    variables = {'params': params, 'batch_stats': state.batch_stats}
    logits, _ = model.apply(variables, images, train=True, mutable=['batch_stats'])
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

  return jax.jit(jax.grad(loss))(state.params)


def test_synchronised_batch_norm_sees_the_whole_batch():
  model = ResNet(num_classes=3, width=2, depths=(1,), batch_norm_axis=parallel.AXIS)
  alone = model.clone(batch_norm_axis=None)
  data, tx = examples(channels=3), probe()
  before = begin(alone, tx, data.images)
  order = augment.epoch_permutation(before.key, 0, EXAMPLES)
  preprocessing = steps.Preprocessing((0.5,) * 3, (0.25,) * 3)
  state = make_step(model, tx, preprocessing)(*place(before, data, order))
  images = preprocessing.evaluate(data.images[batch_of(0, order)])
  assert_close(state.batch_stats, moved_averages(alone, before, images), rtol=1e-3, atol=1e-5)
  labels = data.labels[batch_of(0, order)]
  expected = gradient_of_whole(alone, before, images, labels)
  assert_close(state.opt_state, expected, rtol=1e-3, atol=1e-5)


class Stub:
  """A model of one weight w whose logits are (w x, -w x), x the image's one pixel."""

  def init(self, key, images, train):
    return {'params': {'w': jnp.float32(1)}}

  def apply(self, variables, images, *, train, mutable=(), rngs=None):
    x = variables['params']['w'] * images[:, 0, 0, 0]
    logits = jnp.stack([x, -x], -1)
    return (logits, self.changed(rngs)) if mutable else logits

  def changed(self, rngs):
    return {}


def pixels(*values, labels=None):
  images = jnp.array(values, jnp.uint8).reshape(-1, 1, 1, 1)
  labels = labels or [0] * len(values)
  return parallel.replicate(steps.Arrays(images, jnp.array(labels)))


@pytest.mark.parametrize('batch_size', [4, 8, 12, 100])
def test_evaluation_counts_each_example_once_whatever_the_batch(batch_size):
  # Seven at 0, log 2 each and right; two at 255, right and no loss; the last wrong, 2 * 255. It is
  # the one that fills the last batch up: counted again it would show.
  data = pixels(*[0] * 7, 255, 255, 255, labels=[0] * 9 + [1])
  evaluate = steps.make_evaluation(Stub(), BYTES, batch_size=batch_size)
  loss, accuracy = evaluate({'w': jnp.float32(1)}, {}, data)
  assert float(loss) == pytest.approx((7 * np.log(2) + 510) / 10, rel=1e-6)
  assert float(accuracy) == pytest.approx(0.9)
  data = data._replace(labels=1 - data.labels)  # now the last is right, and no other at 255
  _, accuracy = evaluate({'w': jnp.float32(1)}, {}, data)
  assert float(accuracy) == pytest.approx(0.1)


def test_evaluation_is_the_whole_split_at_once():
  data, model = examples(channels=3), ResNet(num_classes=3, width=2, depths=(1,))
  preprocessing = steps.Preprocessing((0.5,) * 3, (0.25,) * 3)
  state = begin(model, probe(), data.images)
  evaluate = steps.make_evaluation(model, preprocessing, batch_size=12)
  loss, accuracy = evaluate(state.params, state.batch_stats, parallel.replicate(data))
  variables = {'params': state.params, 'batch_stats': state.batch_stats}
  apply = jax.jit(model.apply, static_argnames='train')
  logits = apply(variables, preprocessing.evaluate(data.images), train=False)
  losses = -jax.nn.log_softmax(logits)[jnp.arange(EXAMPLES), data.labels]
  assert float(loss) == pytest.approx(float(losses.mean()), rel=1e-5)
  assert float(accuracy) == pytest.approx(float((logits.argmax(-1) == data.labels).mean()))


def test_smoothed_labels_train_and_do_not_validate():
  preprocessing = steps.Preprocessing((0.0,), (1.0,))  # logits 1 and -1, the second is right
  images = jnp.full((EXAMPLES, 1, 1, 1), 255, jnp.uint8)
  data = steps.Arrays(images, jnp.ones(EXAMPLES, jnp.int32))
  log_p = -np.log1p(np.exp([-2.0, 2.0]))
  state = parallel.replicate(initial({'params': {'w': jnp.float32(1)}}, PASS, 0).train)
  step = steps.make_train_step(
    Stub(), PASS, preprocessing, batch_size=BATCH, steps_per_epoch=2, label_smoothing=0.2
  )
  after = parallel.map_replicas(step)(*place(state, data, jnp.arange(EXAMPLES)))
  assert float(after.window.loss) == pytest.approx(-(0.1 * log_p[0] + 0.9 * log_p[1]), rel=1e-5)
  evaluate = steps.make_evaluation(Stub(), preprocessing, batch_size=BATCH)
  loss, _ = evaluate({'w': jnp.float32(1)}, {}, parallel.replicate(data))
  assert float(loss) == pytest.approx(-log_p[1], rel=1e-5)


def test_what_is_cut_out_is_the_mean_and_leaves_crop_and_flip_as_they_were():
  images = examples(channels=3).images
  keys = augment.example_keys(jax.random.key(0), 0, jnp.arange(EXAMPLES))
  plain = steps.Preprocessing((0.4,) * 3, (0.2,) * 3, crop_padding=2, flip=True)
  before, after = (p.train(keys, images) for p in (plain, plain._replace(cutout=3)))
  gone = (after == 0).all(-1)
  assert 4 * EXAMPLES <= gone.sum() <= 9 * EXAMPLES
  np.testing.assert_array_equal(after, jnp.where(gone[..., None], 0, before))
  np.testing.assert_array_equal(plain._replace(cutout=3).evaluate(images), plain.evaluate(images))


BETTER = {  # (loss, accuracy) after the best so far, 0.5 and 0.7: is it better?
  'loss': {(0.4, 0.1): True, (0.5, 0.9): False, (np.nan, 0.9): False},
  'accuracy': {
    (0.9, 0.8): True,
    (0.4, 0.7): True,
    (0.6, 0.7): False,
    (0.1, 0.6): False,
    (np.nan, 0.9): False,
  },
}


@pytest.mark.parametrize('by', BETTER)
def test_the_best_network_is_by_loss_or_by_accuracy(by):
  state = initial({'params': {'w': jnp.float32(1)}}, PASS, 0)
  best = state.best._replace(step=3, loss=jnp.float32(0.5), accuracy=jnp.float32(0.7))
  new = state.train._replace(step=jnp.int32(9), params={'w': jnp.float32(2)})
  for (loss, accuracy), expected in BETTER[by].items():
    found = better(best, new, jnp.float32(loss), jnp.float32(accuracy), by)
    assert int(found.step) == (9 if expected else 3), (loss, accuracy)
    assert float(found.params['w']) == (2 if expected else 1)


@pytest.mark.parametrize('by', BETTER)
def test_any_network_is_better_than_none(by):
  state = initial({'params': {'w': jnp.float32(1)}}, PASS, 0)
  assert int(better(state.best, state.train, jnp.float32(9), jnp.float32(0), by).step) == 0


def add(value):
  """Adds to the updates a value of the step's."""
  return optax.stateless(lambda updates, params: jax.tree.map(lambda u: u + value, updates))


def test_the_window_keeps_the_first_bad_step():
  # Step 0 is finite and moves w to infinity; the loss of step 1 and of all after it is NaN.
  tx = optax.chain(optax.scale(0.0), add(jnp.inf))
  tx, data = optax.with_extra_args_support(tx), pixels(*[1] * EXAMPLES)
  state, step = begin(Stub(), tx, data.images), make_step(Stub(), tx, BYTES)
  bad = []
  for _ in range(3):
    state = step(state, data, parallel.replicate(jnp.arange(EXAMPLES)))
    bad.append(int(state.window.bad_step))
  assert bad == [-1, 1, 1]
  assert int(state.window.steps) == 3
  assert_shards_are_equal(state.window)


class Noisy(Stub):
  """Tells in its averages what its dropout key draws, each replica in a place of its own."""

  def init(self, key, images, train):
    return super().init(key, images, train) | {'batch_stats': jnp.zeros(4)}

  def changed(self, rngs):
    draw = jax.random.uniform(rngs['dropout'])
    place = jnp.arange(4) == jax.lax.axis_index(parallel.AXIS)
    return {'batch_stats': jnp.where(place, draw, 0.0)}


def test_dropout_differs_by_replica_step_and_seed_and_is_the_same_again():
  tx, data = optax.with_extra_args_support(optax.set_to_zero()), pixels(*range(EXAMPLES))
  step = make_step(Noisy(), tx, BYTES)

  def draws(seed):
    state, found = begin(Noisy(), tx, data.images, seed), []
    for _ in range(3):
      state = step(state, data, parallel.replicate(jnp.arange(EXAMPLES)))
      found.append(np.asarray(4 * state.batch_stats))
    return np.stack(found)

  one = draws(0)
  assert len(set(one.ravel().tolist())) == 12
  np.testing.assert_array_equal(draws(0), one)
  assert not set(draws(1).ravel().tolist()) & set(one.ravel().tolist())


@pytest.mark.parametrize('batch_size', [0, -4, 6])
def test_a_batch_that_the_devices_cannot_share_is_refused(batch_size):
  with pytest.raises(ValueError, match=rf'^batch_size={batch_size} must be a multiple of the'):
    steps.make_train_step(Stub(), probe(), BYTES, batch_size=batch_size, steps_per_epoch=1)


def test_preprocessing_augments_in_training_only():
  keys, data = augment.example_keys(jax.random.key(0), 0, jnp.arange(EXAMPLES)), examples()
  plain = steps.Preprocessing((0.5,), (0.5,))
  random = plain._replace(crop_padding=2, flip=True)
  expected = data.images / 127.5 - 1
  for images in (
    plain.train(keys, data.images),
    plain.evaluate(data.images),
    random.evaluate(data.images),
  ):
    np.testing.assert_allclose(images, expected, atol=1e-6)
  changed = random.train(keys, data.images)
  assert changed.shape == expected.shape
  assert not np.allclose(changed, expected)
