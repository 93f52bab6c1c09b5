"""Loading: splits, moments, a person's own arrays, and a cache that never stops a run."""

import concurrent.futures
import errno
import hashlib
import json
import logging
import os
import pathlib
import resource
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejax.experiment.data import datasets, prepare, sources
from sparsejax.experiment.step import steps


def _whole(count: int) -> datasets.Split:
  labels = np.arange(count, dtype=np.int32)
  return datasets.Split(labels.astype(np.uint8).reshape(-1, 1, 1, 1), labels)


# --- Splits and moments --------------------------------------------------------------------------


def test_first_keeps_the_first_examples_for_training():
  train, validation = datasets.take_validation(_whole(5), validation=2, split='first')
  assert train.labels.tolist() == [0, 1, 2]
  assert validation.labels.tolist() == [3, 4]


@settings(deadline=None)
@given(st.integers(1, 60), st.data())
def test_a_shuffled_split_is_a_partition_drawn_by_its_seed(count, draw):
  validation = draw.draw(st.integers(0, count - 1))
  seed = draw.draw(st.integers(0, 2**63 - 1))
  parts = datasets.take_validation(_whole(count), validation=validation, split_seed=seed)
  again = datasets.take_validation(_whole(count), validation=validation, split_seed=seed)
  assert len(parts[1].labels) == validation
  assert sorted([*parts[0].labels, *parts[1].labels]) == list(range(count))
  for part, same in zip(parts, again, strict=True):
    np.testing.assert_array_equal(part.labels, same.labels)
    np.testing.assert_array_equal(part.images.ravel(), part.labels.astype(np.uint8))


def test_the_shuffled_split_is_the_same_for_good():
  # Drawn once and written down: no version of NumPy may change what a published split holds.
  _, validation = datasets.take_validation(_whole(10), validation=4, split_seed=7)
  assert validation.labels.tolist() == [8, 7, 5, 1]
  _, other = datasets.take_validation(_whole(10), validation=4, split_seed=8)
  assert validation.labels.tolist() != other.labels.tolist()


def test_moments_by_hand():
  # Channel 0: 0, 255 with mean 1/2, std 1/2. Channel 1: 51 = 255/5 always, so std counts as 1.
  images = np.array([[0, 51], [255, 51]], np.uint8).reshape(2, 1, 1, 2)
  mean, std = datasets.moments(images)
  assert mean == (0.5, 0.2)
  assert std == (0.5, 1.0)


def test_moments_agree_with_numpy():
  images = np.random.default_rng(0).integers(0, 256, (20, 5, 4, 3), dtype=np.uint8)
  mean, std = datasets.moments(images)
  np.testing.assert_allclose(mean, (images / 255).mean((0, 1, 2)), rtol=1e-12)
  np.testing.assert_allclose(std, (images / 255).std((0, 1, 2)), rtol=1e-12)


# --- The embedded digits -------------------------------------------------------------------------


def test_digits_are_the_real_ones_in_a_fixed_split():
  digits = datasets.load('digits')
  assert [len(split.labels) for split in (digits.train, digits.validation, digits.test)] == [
    1197,
    300,
    300,
  ]
  for split in (digits.train, digits.validation, digits.test):
    assert split.images.dtype == np.uint8
    assert split.images.shape[1:] == (8, 8, 1)
    assert split.labels.dtype == np.int32
    assert set(split.labels) == set(range(10))
  images = np.concatenate([digits.train.images, digits.validation.images, digits.test.images])
  assert len({image.tobytes() for image in images}) == 1797  # none twice: the splits are disjoint
  assert images.max() == 255
  assert (digits.mean, digits.std) == datasets.moments(digits.train.images)
  assert digits.digest is None
  other = datasets.load('digits', split_seed=3, split='first')
  np.testing.assert_array_equal(other.train.images, digits.train.images)


def test_limit_keeps_the_first_training_examples_and_the_moments():
  full, short = datasets.load('digits'), datasets.load('digits', limit=10)
  np.testing.assert_array_equal(short.train.images, full.train.images[:10])
  np.testing.assert_array_equal(short.train.labels, full.train.labels[:10])
  assert (short.mean, short.std) == (full.mean, full.std)
  assert len(short.validation.labels) == 300


def test_every_device_of_a_processor_has_the_one_copy_of_the_data_set():
  digits = datasets.load('digits', limit=1001)
  for split in (digits.train, digits.validation, digits.test):
    for host, array in zip(split, steps.put_on_devices(split), strict=True):
      places = [shard.data.unsafe_buffer_pointer() for shard in array.addressable_shards]
      assert places == [host.ctypes.data] * 4
      assert not host.flags.writeable


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'name': 'cifr10'}, "unknown data set (data.name) 'cifr10': did you mean 'cifar10'? Known:"),
    ({'split': 'frist'}, "unknown data.split 'frist': did you mean 'first'? Known: first, shuffle"),
    ({'validation': 1497}, 'data.validation=1497 must be from 0 to 1496'),
    ({'validation': -1}, 'data.validation=-1 must be from 0 to 1496'),
    ({'validation': 0.2}, 'data.validation=0.2 must be a whole number'),
    ({'split_seed': -1}, 'data.split_seed=-1 must be from 0 to'),
    ({'limit': 0}, 'data.limit=0 must be from 1 to 1197 (the training split)'),
    ({'limit': 1198}, 'data.limit=1198 must be from 1 to 1197 (the training split)'),
    ({'limit': True}, 'data.limit=True must be a whole number'),
  ],
)
def test_a_bad_setting_is_named_in_one_line(settings, message):
  with pytest.raises(ValueError) as error:
    datasets.load(**{'name': 'digits', **settings})
  assert str(error.value).startswith(message)
  assert '\n' not in str(error.value)


# --- A person's own arrays -----------------------------------------------------------------------


def _arrays(**changes) -> dict[str, np.ndarray]:
  rng = np.random.default_rng(0)
  arrays = {
    'x_train': rng.integers(0, 256, (20, 3, 2), dtype=np.uint8),
    'y_train': np.arange(20) % 4,
    'x_test': rng.integers(0, 256, (5, 3, 2), dtype=np.uint8),
    'y_test': np.arange(5) % 4,
  }
  return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


def test_npz_round_trip(tmp_path):
  np.savez(tmp_path / 'own.npz', **_arrays())
  own = datasets.load(f'npz:{tmp_path / "own.npz"}', split='first')
  assert own.num_classes == 4
  assert own.train.images.shape == (18, 3, 2, 1)  # a tenth goes to validation, grey is one channel
  np.testing.assert_array_equal(own.train.images[..., 0], _arrays()['x_train'][:18])
  np.testing.assert_array_equal(own.validation.labels, [2, 3])
  np.testing.assert_array_equal(own.test.labels, [0, 1, 2, 3, 0])
  assert own.train.labels.dtype == np.int32
  assert (own.mean, own.std) == datasets.moments(own.train.images)


def test_the_digest_is_of_the_content_and_not_of_the_file(tmp_path):
  np.savez(tmp_path / 'a.npz', **_arrays())
  np.savez_compressed(tmp_path / 'b.npz', extra=np.ones(3), **_arrays())
  np.savez(tmp_path / 'c.npz', **_arrays(y_test=np.array([0, 1, 2, 3, 1])))
  a, b, c = (datasets.load(f'npz:{tmp_path}/{name}.npz').digest for name in 'abc')
  assert len(a) == len(hashlib.sha256().hexdigest())
  assert a == b
  assert a != c


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'y_test': None}, 'it lacks y_test; it must hold x_train, y_train, x_test, y_test'),
    ({'x_train': np.ones((20, 3, 2))}, 'x_train is float64; it must be uint8'),
    ({'x_test': np.ones((5, 6), np.uint8)}, 'x_test has shape (5, 6); it must be'),
    ({'x_test': np.ones((0, 3, 2), np.uint8)}, 'x_test has shape (0, 3, 2); it must be'),
    ({'x_test': np.ones((5, 3, 3), np.uint8)}, 'images of shape (3, 2, 1) in x_train, (3, 3, 1)'),
    (
      {'x_train': np.ones((20, 3, 32, 32), np.uint8)},
      'x_train has shape (20, 3, 32, 32), which looks like (examples, channels, height, width); it',
    ),
    ({'y_train': np.ones(20)}, 'y_train is float64 of shape (20,); it must be integers'),
    ({'y_train': np.ones((20, 1), int)}, 'y_train is int64 of shape (20, 1); it must be integers'),
    ({'y_train': np.arange(19)}, '20 images in x_train, 19 in y_train'),
    ({'y_train': np.arange(20) - 1}, 'labels -1 to 18 in y_train must be from 0 to 65535'),
    ({'y_train': np.arange(20) + 65530}, 'labels 65530 to 65549 in y_train must be from 0 to'),
    ({'y_test': np.arange(5)}, 'labels 0 to 4 in y_test must be from 0 to 3'),
    ({'y_test': np.array([None] * 5)}, 'Object arrays cannot be loaded'),
  ],
)
def test_bad_arrays_are_named_in_one_line(tmp_path, changes, message):
  path = tmp_path / 'own.npz'
  np.savez(path, **_arrays(**changes))
  with pytest.raises(ValueError) as error:
    datasets.load(f'npz:{path}')
  assert str(error.value).startswith(f"data.name='npz:{path}': {message}")
  assert '\n' not in str(error.value)


def _damaged(path: pathlib.Path, how: str) -> None:
  content = path.read_bytes()
  middle = len(content) // 2
  path.write_bytes(
    {
      'empty': b'',
      'short': content[:middle],
      'flipped': content[:middle] + bytes([content[middle] ^ 255]) + content[middle + 1 :],
      'other': b'x_train',
    }[how]
  )


@pytest.mark.parametrize('how', ['empty', 'short', 'flipped', 'other'])
def test_a_damaged_npz_is_refused_in_one_line(tmp_path, how):
  path = tmp_path / 'own.npz'
  np.savez(path, **_arrays(x_train=np.zeros((20, 9, 9), np.uint8)))
  _damaged(path, how)
  with pytest.raises(ValueError, match=r"^data.name='npz:.*own.npz': [^\n]+$"):
    datasets.load(f'npz:{path}')


def test_a_missing_npz_a_npy_and_a_folder_are_refused(tmp_path):
  np.save(tmp_path / 'one.npy', np.ones(3))
  with pytest.raises(ValueError, match='No such file'):
    datasets.load(f'npz:{tmp_path}/none.npz')
  for path in (tmp_path / 'one.npy', tmp_path):
    with pytest.raises(ValueError, match='not an npz file'):
      datasets.load(f'npz:{path}')


# --- The cache -----------------------------------------------------------------------------------


class _Folder:
  """A folder that looks prepared, and a count of how often it is decoded."""

  def __init__(self, root: pathlib.Path):
    self.root = root
    self.cache = root / 'cache'
    self.decoded = 0
    folder = root / 'mnist' / '3.0.1'
    folder.mkdir(parents=True)
    (folder / 'dataset_info.json').write_text(json.dumps({'name': 'mnist'}))
    self.shard = folder / 'mnist-train.array_record-00000-of-00001'
    self.shard.write_bytes(b'records')

  def decode(self, folder: pathlib.Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    assert folder == self.shard.parent
    self.decoded += split == 'train'
    rng = np.random.default_rng(split == 'train')
    return rng.integers(0, 256, (40, 28, 28, 1), dtype=np.uint8), np.arange(40, dtype=np.int32) % 10

  def load(self, **settings) -> datasets.Dataset:
    return datasets.load('mnist', directory=self.root, validation=4, split='first', **settings)

  def check(self, **settings) -> None:
    loaded = self.load(**settings)
    images, labels = (np.copy(x) for x in _Folder.decode(self, self.shard.parent, 'test'))
    np.testing.assert_array_equal(loaded.test.images, images)
    np.testing.assert_array_equal(loaded.test.labels, labels)
    assert len(loaded.train.labels) == 36


@pytest.fixture
def folder(tmp_path, monkeypatch):
  folder = _Folder(tmp_path)
  monkeypatch.setattr(prepare, 'decode', folder.decode)
  monkeypatch.setenv('SPARSEJAX_CACHE', str(folder.cache))
  return folder


def test_the_second_load_comes_from_the_cache(folder):
  folder.check()
  folder.check()
  assert folder.decoded == 1
  (file,) = folder.cache.iterdir()
  assert file.name.startswith('mnist-3.0.1-')
  folder.check(cache=False)
  assert folder.decoded == 2


def test_a_change_of_the_source_is_decoded_again(folder):
  folder.check()
  folder.shard.write_bytes(b'other records')
  folder.check()
  stat = folder.shard.stat()
  os.utime(folder.shard, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
  folder.check()
  assert folder.decoded == 3


@pytest.mark.parametrize('how', ['empty', 'short', 'flipped', 'other'])
def test_a_damaged_cache_is_rebuilt_with_one_warning(folder, how, caplog):
  folder.check()
  (file,) = folder.cache.iterdir()
  _damaged(file, how)
  with caplog.at_level(logging.WARNING):
    folder.check()
  assert ['cannot read the cache' in record.getMessage() for record in caplog.records] == [True]
  folder.check()
  assert folder.decoded == 2


def test_a_cache_that_cannot_be_made_stops_nothing(folder, monkeypatch, caplog):
  monkeypatch.setenv('SPARSEJAX_CACHE', str(folder.shard / 'below_a_file'))
  with caplog.at_level(logging.WARNING):
    folder.check()
  assert ['cannot write the cache' in record.getMessage() for record in caplog.records] == [True]


def test_a_full_disk_stops_nothing_and_leaves_nothing(folder, caplog):
  soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))  # the third of the arrays is too much
  try:
    with caplog.at_level(logging.WARNING):
      folder.check()
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
  messages = [record.getMessage() for record in caplog.records]
  assert len(messages) == 1
  assert 'cannot write the cache' in messages[0]
  assert os.strerror(errno.EFBIG) in messages[0]
  assert list(folder.cache.iterdir()) == []


def test_many_at_once_all_get_the_arrays(folder):
  barrier = threading.Barrier(8)

  def load():
    barrier.wait()
    folder.check()

  with concurrent.futures.ThreadPoolExecutor(8) as pool:
    for future in [pool.submit(load) for _ in range(8)]:
      future.result()
  assert len(list(folder.cache.iterdir())) == 1


# --- Which folder --------------------------------------------------------------------------------


def test_the_newest_finished_version_is_found(tmp_path):
  names = ('3.0.2', '3.0.10', 'incomplete.AB12CD_3.0.11', '3.0.11.old', '4.0.0')
  for name in names:
    (tmp_path / 'cifar10' / name).mkdir(parents=True)
    if name != '4.0.0':
      (tmp_path / 'cifar10' / name / 'dataset_info.json').touch()
  assert sources.find_prepared('cifar10', tmp_path).name == '3.0.10'
  assert sources.find_prepared('mnist', tmp_path) is None


def test_the_default_folder_is_that_of_tensorflow_datasets(folder, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(folder.root))
  loaded = datasets.load('mnist', validation=4)
  assert folder.decoded == 1
  assert loaded.num_classes == 10


def test_cifar_has_its_fixed_moments_and_its_log_split(tmp_path, monkeypatch):
  (tmp_path / 'cifar10' / '3.0.2').mkdir(parents=True)
  (tmp_path / 'cifar10' / '3.0.2' / 'dataset_info.json').touch()
  labels = np.arange(50_000, dtype=np.int32) % 10
  images = np.zeros((50_000, 1, 1, 3), np.uint8)
  monkeypatch.setattr(prepare, 'decode', lambda folder, split: (images, labels))
  cifar = datasets.load('cifar10', directory=tmp_path, split='first', cache=False)
  assert [len(x.labels) for x in (cifar.train, cifar.validation)] == [40_000, 10_000]
  assert cifar.mean == (0.4914, 0.4822, 0.4465)
  assert cifar.std == (0.2023, 0.1994, 0.2010)


def test_arrays_without_a_path_are_told_so():
  with pytest.raises(
    ValueError, match=r"^data.name='npz:' must have the path of an npz file after"
  ):
    datasets.load('npz:')
