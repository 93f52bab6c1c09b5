"""Preparing and reading tensorflow-datasets' folders, from archives served on this machine."""

import errno
import functools
import gzip
import http.server
import io
import json
import pathlib
import struct
import sys
import tarfile
import threading

import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import checksums

from sparsejax.experiment.data import datasets, prepare, sources

_TRAIN, _TEST = 7, 3


class _Quiet(http.server.SimpleHTTPRequestHandler):
  def log_message(self, *args):
    pass


class _Site:
  """A web site that publishes tiny archives of the real formats, their sums registered."""

  def __init__(self, folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    self.folder, self.monkeypatch, self.url = folder, monkeypatch, 'http://127.0.0.1:9/'
    rng = np.random.default_rng(0)
    self.labels = {'train': rng.integers(0, 10, _TRAIN), 'test': rng.integers(0, 10, _TEST)}
    self.images = {
      shape: {
        part: rng.integers(0, 256, (len(labels), *shape), dtype=np.uint8)
        for part, labels in self.labels.items()
      }
      for shape in ((28, 28, 1), (32, 32, 3))
    }

  def mnist(self, builder: type = prepare.MNIST) -> None:
    for part, stem in (('train', 'train'), ('test', 't10k')):
      images, labels = self.images[28, 28, 1][part], self.labels[part]
      header = struct.pack('>4B3I', 0, 0, 8, 3, len(images), 28, 28)
      self.write(f'{stem}-images-idx3-ubyte.gz', gzip.compress(header + images.tobytes()))
      header = struct.pack('>4BI', 0, 0, 8, 1, len(labels))
      content = gzip.compress(header + labels.astype(np.uint8).tobytes())
      self.write(f'{stem}-labels-idx1-ubyte.gz', content)
    self.monkeypatch.setattr(builder, 'URL', self.url)
    self.register(builder)

  def cifar(self, builder: type) -> None:
    info = builder(data_dir=self.folder)._cifar_info
    files = {}
    for part, names in (('train', info.train_files), ('test', info.test_files)):
      labels, images = self.labels[part], self.images[32, 32, 3][part]
      # The coarse label, where there is one, comes before the fine one: here it is half of it.
      columns = [labels // 2, labels] if len(info.label_keys) == 2 else [labels]
      rows = np.column_stack([*columns, images.transpose(0, 3, 1, 2).reshape(len(images), -1)])
      for name, chunk in zip(names, np.array_split(rows, len(names)), strict=True):
        files[name] = chunk.astype(np.uint8).tobytes()
    for key, name in zip(info.label_keys, info.label_files, strict=True):
      count = {'label': 100 if len(info.label_keys) == 2 else 10, 'coarse_label': 20}[key]
      files[name] = ''.join(f'{key}{i}\n' for i in range(count)).encode() + b'\n'
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode='w:gz') as tar:
      for name, content in files.items():
        member = tarfile.TarInfo(info.prefix + name)
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    archive = info.url.rsplit('/', 1)[1]
    self.write(archive, buffer.getvalue())
    self.monkeypatch.setattr(builder, '_cifar_info', info._replace(url=self.url + archive))
    self.register(builder)

  def write(self, name: str, content: bytes) -> None:
    (self.folder / name).write_bytes(content)

  def register(self, builder: type) -> None:
    files = (path for path in self.folder.iterdir() if path.is_file())
    sums = {self.url + path.name: checksums.compute_url_info(path) for path in files}
    self.monkeypatch.setattr(builder, 'url_infos', sums)

  def same(self, split: datasets.Split, part: str) -> bool:
    """Whether a split holds the published pairs of image and label, in whatever order."""
    images = self.images[split.images.shape[1:]][part]
    pairs = zip(split.images, split.labels, strict=True)
    published = zip(images, self.labels[part], strict=True)
    key = lambda pair: (pair[0].tobytes(), int(pair[1]))  # noqa: E731
    return sorted(map(key, pairs)) == sorted(map(key, published))


@pytest.fixture
def offline(tmp_path, monkeypatch):
  """A site whose server does not run: nothing listens on its port."""
  monkeypatch.setenv('NO_PROXY', '127.0.0.1')
  monkeypatch.setenv('no_proxy', '127.0.0.1')
  monkeypatch.setattr(prepare, 'ATTEMPTS', 0)
  (tmp_path / 'site').mkdir()
  return _Site(tmp_path / 'site', monkeypatch)


@pytest.fixture
def site(offline):
  handler = functools.partial(_Quiet, directory=offline.folder)
  with http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
    thread = threading.Thread(target=server.serve_forever, kwargs={'poll_interval': 0.01})
    thread.start()
    offline.url = f'http://127.0.0.1:{server.server_port}/'
    yield offline
    server.shutdown()
    thread.join()


def _load(name: str, root: pathlib.Path, **settings) -> datasets.Dataset:
  settings = {'validation': 0, 'split': 'first', 'cache': False, **settings}
  return datasets.load(name, directory=root, **settings)


def _refused(name: str, root: pathlib.Path) -> str:
  """Returns the one line that refuses the data set; nothing may be left that looks prepared."""
  with pytest.raises(ValueError) as error:
    _load(name, root)
  assert '\n' not in str(error.value)
  assert sources.find_prepared(name, root) is None
  return str(error.value)


@pytest.mark.parametrize(
  ('name', 'builder'), [('mnist', prepare.MNIST), ('fashion_mnist', prepare.FashionMNIST)]
)
def test_mnist_is_prepared_and_read(site, tmp_path, capsys, name, builder):
  site.mnist(builder)
  (tmp_path / 'data').mkdir()
  loaded = _load(name, tmp_path / 'data')
  assert site.same(loaded.train, 'train')
  assert site.same(loaded.test, 'test')
  assert capsys.readouterr().out == ''
  assert 'tensorflow' not in sys.modules


@pytest.mark.parametrize(
  ('name', 'builder'), [('cifar10', prepare.Cifar10), ('cifar100', prepare.Cifar100)]
)
def test_cifar_is_prepared_and_read(site, tmp_path, name, builder):
  site.cifar(builder)
  (tmp_path / 'data').mkdir()
  loaded = _load(name, tmp_path / 'data')
  assert site.same(loaded.train, 'train')
  assert site.same(loaded.test, 'test')
  assert (
    loaded.num_classes == builder(data_dir=tmp_path / 'data').info.features['label'].num_classes
  )


def test_the_folder_is_one_of_tensorflow_datasets(site, tmp_path):
  site.cifar(prepare.Cifar100)
  _load('cifar100', tmp_path)
  source = tfds.data_source('cifar100', data_dir=tmp_path, split='train', download=False)
  assert len(source) == _TRAIN
  for example in source:
    index = int(example['id'].removeprefix(b'train_'))
    np.testing.assert_array_equal(example['image'], site.images[32, 32, 3]['train'][index])
    assert example['label'] == site.labels['train'][index]
    assert example['coarse_label'] == site.labels['train'][index] // 2
  names = source.dataset_info.features['coarse_label'].names
  assert names == [f'coarse_label{i}' for i in range(20)]
  assert [path.name for path in (tmp_path / 'cifar100').iterdir()] == ['3.0.2']


def test_a_folder_that_is_not_there_is_not_made(site, tmp_path):
  site.mnist(prepare.MNIST)
  mistyped = tmp_path / 'dta'
  line = _refused('mnist', mistyped)
  assert line.startswith(f"data.dir='{mistyped}' must be an existing folder")
  assert not mistyped.exists()


def test_what_is_prepared_is_not_asked_for_again(site, tmp_path):
  site.mnist()
  _load('mnist', tmp_path)
  for path in site.folder.iterdir():
    path.unlink()
  assert site.same(_load('mnist', tmp_path).train, 'train')


def test_a_download_is_kept_for_the_next_attempt(site, tmp_path):
  site.mnist()
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(prepare.MNIST, '_generate_examples', lambda self, *paths: iter(()))
    assert 'preparing it failed' in _refused('mnist', tmp_path)
  for path in site.folder.iterdir():
    path.unlink()
  assert site.same(_load('mnist', tmp_path).train, 'train')


def test_what_a_killed_preparation_leaves_is_not_believed(site, tmp_path):
  site.mnist()
  _load('mnist', tmp_path)
  folder = tmp_path / 'mnist' / '3.0.1'
  folder.rename(folder.with_name('incomplete.AB12CD_3.0.1'))
  assert sources.find_prepared('mnist', tmp_path) is None
  assert site.same(_load('mnist', tmp_path).test, 'test')


def test_another_process_may_be_faster(site, tmp_path, monkeypatch):
  site.mnist()
  generate, calls = prepare.MNIST._generate_examples, []

  def slow(self, *paths):
    calls.append(paths)
    if len(calls) == 1:
      prepare.prepare('mnist', tmp_path)
    yield from generate(self, *paths)

  monkeypatch.setattr(prepare.MNIST, '_generate_examples', slow)
  assert site.same(_load('mnist', tmp_path).train, 'train')
  assert len(calls) == 4
  assert [path.name for path in (tmp_path / 'mnist').iterdir()] == ['3.0.1']


def test_no_server(offline, tmp_path):
  offline.mnist()
  line = _refused('mnist', tmp_path)
  assert line.startswith(
    f"data.dir='{tmp_path}' holds no prepared 'mnist' and downloading it failed: ConnectionError:"
  )
  assert line.endswith("; give a folder that holds it, or data.name='digits', which needs none")
  assert [path.name for path in tmp_path.iterdir()] == ['site']  # no folder of nothing


def test_without_a_server_nothing_that_was_there_goes(offline, tmp_path):
  offline.mnist()
  kept = tmp_path / 'downloads' / 'mine'
  kept.mkdir(parents=True)
  (tmp_path / 'another').mkdir()
  _refused('mnist', tmp_path)
  assert kept.is_dir()
  assert sorted(path.name for path in tmp_path.iterdir()) == ['another', 'downloads', 'site']


def test_a_server_without_the_file(site, tmp_path):
  site.cifar(prepare.Cifar10)
  (site.folder / 'cifar-10-binary.tar.gz').unlink()
  line = _refused('cifar10', tmp_path)
  assert 'downloading it failed: DownloadError: Failed to get url' in line
  assert 'HTTP code: 404' in line


def test_a_wrong_checksum(site, tmp_path):
  site.cifar(prepare.Cifar10)
  archive = site.folder / 'cifar-10-binary.tar.gz'
  archive.write_bytes(archive.read_bytes() + b'!')
  line = _refused('cifar10', tmp_path)
  assert 'downloading it failed: NonMatchingChecksumError' in line


def test_an_address_without_a_registered_sum(site, tmp_path):
  site.cifar(prepare.Cifar10)
  site.monkeypatch.setattr(prepare.Cifar10, 'url_infos', {})
  site.monkeypatch.setattr(checksums, 'get_all_url_infos', dict)
  assert 'Missing checksums url' in _refused('cifar10', tmp_path)


def test_the_sums_of_the_real_addresses_are_registered():
  registered = checksums.get_all_url_infos()
  for builder in (prepare.Cifar10, prepare.Cifar100):
    assert builder(data_dir='unused')._cifar_info.url in registered
  for builder in (prepare.MNIST, prepare.FashionMNIST):
    names = ('train-images-idx3', 'train-labels-idx1', 't10k-images-idx3', 't10k-labels-idx1')
    assert all(f'{builder.URL}{name}-ubyte.gz' in registered for name in names)


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'no gzip', 'BadGzipFile'),
    (gzip.compress(bytes(1000))[:-12], 'EOFError'),
    (gzip.compress(b'\0\0\x0d\x01'), 'not with an idx header of uint8'),
    (gzip.compress(struct.pack('>4B3I', 0, 0, 8, 3, 2, 28, 28) + bytes(784)), 'reshape'),
    (gzip.compress(struct.pack('>4B3I', 0, 0, 8, 3, 1, 2, 2) + bytes(4)), 'not images of 28x28'),
  ],
  ids=['no gzip', 'cut', 'header', 'short', 'small'],  # gzip's bytes hold the time
)
def test_a_damaged_idx_file(site, tmp_path, content, message):
  site.mnist()
  site.write('train-images-idx3-ubyte.gz', content)
  site.register(prepare.MNIST)
  line = _refused('mnist', tmp_path)
  assert 'preparing it failed: ValueError' in line
  assert message in line


def test_a_damaged_tar_file(site, tmp_path):
  site.cifar(prepare.Cifar10)
  content = (site.folder / 'cifar-10-binary.tar.gz').read_bytes()
  site.write('cifar-10-binary.tar.gz', content[: len(content) // 2])
  site.register(prepare.Cifar10)
  assert 'is damaged: remove it (' in _refused('cifar10', tmp_path)


@pytest.mark.parametrize(
  ('read', 'opens'), [(prepare.read_idx, gzip), (prepare.read_tar, tarfile)], ids=['idx', 'tar']
)
def test_a_disk_that_fails_is_no_damage(monkeypatch, tmp_path, read, opens):
  def fail(*_):
    raise OSError(errno.EIO, 'Input/output error')

  monkeypatch.setattr(opens, 'open', fail)
  with pytest.raises(OSError, match='Input/output error'):
    read(tmp_path / 'file')


def test_a_folder_that_can_not_be_read_now_is_not_to_be_removed(monkeypatch, site, tmp_path):
  site.mnist()
  _load('mnist', tmp_path)

  def fail(*_):
    raise OSError(errno.EMFILE, 'Too many open files')

  monkeypatch.setattr(prepare.tfds, 'builder_from_directory', fail)
  with pytest.raises(ValueError, match=r'Too many open files; nothing was changed; try again'):
    prepare.decode(tmp_path / 'mnist' / '3.0.1', 'test')


def test_a_label_out_of_range_gives_a_line_and_not_an_image(site, tmp_path):
  site.labels['train'][0] = 10
  site.mnist()
  line = _refused('mnist', tmp_path)
  assert 'preparing it failed' in line
  assert len(line) < 600


@pytest.mark.parametrize('how', ['short', 'empty', 'flipped', 'gone'])
def test_a_damaged_record_file(site, tmp_path, how):
  site.mnist()
  _load('mnist', tmp_path)
  shard = tmp_path / 'mnist' / '3.0.1' / 'mnist-test.array_record-00000-of-00001'
  content = shard.read_bytes()
  if how == 'gone':
    shard.unlink()
  else:
    middle = content[:200] + bytes([content[200] ^ 255]) + content[201:]
    shard.write_bytes({'short': content[:-1000], 'empty': b'', 'flipped': middle}[how])
  with pytest.raises(ValueError) as error:
    _load('mnist', tmp_path)
  assert str(error.value).startswith(f"data.dir='{tmp_path}': 'mnist/3.0.1' cannot be read: ")
  assert '\n' not in str(error.value)


def test_another_record_format(site, tmp_path):
  site.mnist()
  _load('mnist', tmp_path)
  path = tmp_path / 'mnist' / '3.0.1' / 'dataset_info.json'
  path.write_text(json.dumps({**json.loads(path.read_text()), 'fileFormat': 'tfrecord'}))
  with pytest.raises(ValueError, match='it is in tfrecord; only array_record needs no TensorFlow'):
    _load('mnist', tmp_path)
