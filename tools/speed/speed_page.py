"""The rows that tools/speed/speed.py measures, and the README.md made from its figures."""

import pathlib
from typing import Any, NamedTuple

from sparsejax.experiment.machine import provenance
from sparsejax.reports.text.markdown import table
from tools.pages import kept
from tools.pages.readme import kinds_of

FOLDER, PLAIN, STARTUP = kept.RESULTS / 'speed', '_plain', 'startup'
MIB = 2**20
ANSWERS = {  # the folder of a page -> what it is on
  'shrunk_speed': 'Networks without the filters that are zero, and the same networks built small',
  'cpu_sparse': 'Zeros at any place, skipped on CPU',
}


class Row(NamedTuple):
  """A training step to measure.

  name: the name of the row and its files.
  config: a config in configs/.
  batch_size: examples per step.
  options: further options of the benchmark.
  device: `cpu` or `gpu`.
  has_peer: whether PyTorch is timed too.
  has_plain: whether the plain formulation is measured, on CPU.
  vectors: the processor's vectors, as a result names them; '' for any machine.
  rounds: the most rounds.
  gained: why it is faster than the plain formulation.
  missing: why it is slower than PyTorch, or than the machine could be.
  """

  name: str
  config: str
  batch_size: int
  options: tuple[str, ...] = ()
  device: str = 'cpu'
  has_peer: bool = True
  has_plain: bool = True
  vectors: str = ''
  rounds: int = 7
  gained: str = ''
  missing: str = ''

  def runs_on(self, device: str, processor: str) -> bool:
    """Returns whether the row is for such a machine."""
    return self.device == device and processor.endswith(self.vectors)

  def plain_too(self) -> tuple[bool, ...]:
    """Returns the formulations of the row, as values of the option `--plain`."""
    return (False, True) if self.device == 'cpu' and self.has_plain else (False,)

  def command(self) -> list[str]:
    """Returns the benchmark's command, without the parts that only a machine knows."""
    options = f'--config.batch_size={self.batch_size}', *self.options
    return ['-m', 'sparsejax.benchmark', f'--config=configs/{self.config}.py', *options]


BFLOAT16 = ('--config.model.dtype=bfloat16',)
KEPT = 'memory that a step frees is kept: no page faults'
WIDE, NARROW = provenance.VECTORS.values()
ROWS = (
  Row('lenet300', 'lenet300_dc', 128, vectors=WIDE, gained=KEPT),
  Row(
    'lenet5',
    'lenet5_dc',
    128,
    vectors=WIDE,
    gained=f'{KEPT}; both convolutions and their gradients as one product for several outputs of a '
    "row at once, which fills the vectors where one output's 20 or 50 features do not; pooling by "
    "comparisons, where XLA's gradient is a select-and-scatter",
    missing="from the machine's rate: copying what each row of outputs sees, pooling, and products "
    'of a millisecond',
  ),
  Row(
    'vgg16',
    'vgg16_dense',
    128,
    vectors=WIDE,
    gained=f'{KEPT} (15 %); convolutions by Winograd: 16 products for 4 outputs in place of 36, '
    'and where images are 4x4 and smaller in place of a path that is tens of times slower',
    missing="from the machine's rate: the transforms, and the kernel's gradient at 32x32 by im2col",
  ),
  Row(
    'mobilenet',
    'mobilenet_dense',
    128,
    vectors=WIDE,
    gained='depthwise convolutions as sums of elementwise products, their gradients too; pointwise '
    'ones as matrix products',
    missing='for two thirds of a step one of the cores idles: the largest part of what runs on one '
    'core is the gradients of the depthwise kernels (50 of 300 ms), loops over a few images; the '
    'rest is many short passes, those of BatchNorm among them',
  ),
  Row(
    'resnet50',
    'resnet50_dense',
    64,
    vectors=WIDE,
    gained=f'{KEPT}; pointwise convolutions as matrix products, 3x3 at stride 1 by Winograd',
    missing='in the profile of a step, products take 1.9 of 4.1 busy seconds; passes of BatchNorm, '
    'ReLU and sums over images of up to 67 MB take 1.6, at the rate of the memory. A third of them '
    'only write, for the backward pass, what the mean was taken from',
  ),
  *(
    Row(f'{name}_avx2', config, batch, has_plain=False, vectors=NARROW, rounds=5, missing=missing)
    for name, config, batch, missing in (
      ('lenet300', 'lenet300_dc', 128, ''),
      (
        'lenet5',
        'lenet5_dc',
        128,
        'the second convolution is two thirds of the step, its products at half of the rate and a '
        'sixth of them on zeros, which cost nothing where vectors are wider',
      ),
      ('vgg16', 'vgg16_dense', 128, ''),
      ('mobilenet', 'mobilenet_dense', 128, 'not profiled on this machine'),
      ('resnet50', 'resnet50_dense', 64, ''),
    )
  ),
  Row(
    'resnet50_batch128_avx2',
    'resnet50_dense',
    128,
    has_peer=False,
    has_plain=False,
    vectors=NARROW,
    rounds=3,
  ),
  Row(
    'resnet50_gpu',
    'resnet50_dense',
    128,
    BFLOAT16,
    'gpu',
    rounds=3,
    gained='many steps are one program, of about 1,000 kernels a step, which Python need not start '
    "one by one; PyTorch's variants take 24 to 30 ms where this takes 9; why was not profiled",
    missing='in a profile, elementwise passes and sums, above all for BatchNorm, take 5.1 of 9.0 '
    'ms, convolutions the rest',
  ),
  Row('resnet50_gpu_batch1024', 'resnet50_dense', 1024, BFLOAT16, 'gpu', rounds=3),
  Row(
    'vgg16_gpu',
    'vgg16_dense',
    128,
    BFLOAT16,
    'gpu',
    rounds=3,
    gained="many steps are one program; PyTorch's variants take 9.6 to 11.3 ms where this takes "
    '2.0',
    missing='not profiled',
  ),
)
HEAD = """# Speed: the training step before and after, beside PyTorch's

Whole training steps on data that are on the device: batch, augmentation, both passes, the chain.
*Plain* is what XLA makes of ordinary layers on CPU (`--plain`); an accelerator gets it anyway. Our
steps and PyTorch's are timed in turns within one run, plain ones in a run of their own. PyTorch's
figure is the fastest of its four variants (eager and `torch.compile`, contiguous and
channels-last), without sparsity. `products` is the machine's own rate of large matrix products,
measured in the same run, and `utilisation` the share of it that the step reaches, in the operations
of the plain formulation; `chain overhead` is the time of the step over that without sparsity
transformations, if the chain has any. Times are medians over the given rounds.

There are three kinds of machines: two cores with AVX-512, at about 400 GFLOP/s in products; two
with AVX2, at about 110, whose rows say `avx2`; and a GPU, whose rows say `gpu`, in bfloat16.
Compare speeds only within one kind. The plain rates, and the times in the reasons for rows that
name neither, are from the first kind.
"""
GPU_RUN = """A row for a GPU is measured on one by `python -m tools.speed.speed --device=gpu
--torch-python=PYTHON`; whole runs on a GPU have [a page of their own](../cifar10/README.md)."""
GPU_ROWS = """
The rows of the GPU were measured in a quarter of an hour: in few rounds, on one of the four files
of CIFAR-10's training images (2,500 of 40,000 on the device: memory, planned and held, is that of a
step, not of the data set), by the benchmark's command alone, and with the XLA flags below, since
tuning took longer than the rest. With `--xla_gpu_autotune_level=0` resnet50 compiled in 13 s, but
to a step of 2,970 ms instead of 9.0; at XLA's own level it had not finished after 100 s. PyTorch
made its first steps, in which it chooses among convolutions, while the parts of our step compiled
on the same GPU; in an earlier run, beside other work, its best was 4,818 examples/s.
"""


def write() -> None:
  """Writes results/speed/README.md from the existing figures."""
  found = {path.stem: kept.read(path) for path in sorted(FOLDER.glob('*.json'))}
  FOLDER.mkdir(exist_ok=True)
  (FOLDER / 'README.md').write_text(text_of(found) + answers(kept.RESULTS))


def answers(results: pathlib.Path) -> str:
  """Returns links to the pages on the speed of answers that there are, or nothing."""
  lines = [
    f'- [{title}](../{name}/README.md)'
    for name, title in ANSWERS.items()
    if (results / name / 'README.md').exists()
  ]
  return '\n'.join(['\n## Answers instead of training steps\n', *lines, '']) if lines else ''


def text_of(found: dict[str, dict[str, Any]], rows: tuple[Row, ...] = ROWS) -> str:
  """Returns the page's text.

  Args:
    found: the benchmark's figures by the name of a row, and by that name with `PLAIN`; those of a
      start under `STARTUP`.
    rows: the rows of the tables.
  """
  pairs = [(row, found.get(row.name), found.get(row.name + PLAIN)) for row in rows]
  measured = [pair for pair in pairs if pair[1]]
  shown = [ours for _, ours, _ in measured] + [found[key] for key in (STARTUP,) if key in found]
  parts = [
    HEAD,
    *table(
      'row | batch | plain, examples/s | ours, examples/s | ours / plain | PyTorch, examples/s | '
      'ours / PyTorch | products, GFLOP/s | utilisation | chain overhead | compiling, s | rounds',
      [_speeds(*pair) if pair[1] else _open(pair[0], 9) for pair in pairs],
    ),
    *[GPU_ROWS] * any(row.device == 'gpu' for row, _, _ in measured),
    *_not_run([row for row, ours, _ in pairs if not ours]),
    *_reasons(rows),
    '\n## Memory and traffic\n',
    'For one step, in MiB: what XLA planned for it, arguments included; the most that the\n'
    'process held, and what it held before the step, on CPU including interpreter, JAX, data set\n'
    'and the memory that the allocator keeps. For the averages over devices: bytes predicted from\n'
    'the parameters, and found in the compiled program; with one GPU XLA leaves the averaging\n'
    'out.\n',
    *table(
      'row | batch | planned | planned, plain | most held | before | most held, plain | '
      'all-reduce, predicted | found',
      [_memory(*pair) for pair in measured],
    ),
    *_startup(found.get(STARTUP)),
    '\nMade by `python -m tools.speed.speed`.',
    *sorted({_machine(figures) for figures in shown}),
  ]
  return '\n'.join(parts) + '\n'


def _speeds(row: Row, ours: dict, plain: dict | None) -> str:
  rate, before = ours['examples_per_second'], plain and plain['examples_per_second']
  peers = ours['peers']
  best = max(peers, key=peers.get, default=None)
  overhead = f'{ours["chain_overhead"]:.3f}' if 'bare_step' in ours['spread'] else '-'
  return (
    f'{row.name} | {ours["batch_size"]} | {number(before)} | {number(rate)} | '
    f'{_ratio(before and rate / before)} | '
    f'{f"{number(peers[best])} ({_way(best)})" if best else "-"} | '
    f'{_ratio(ours["ratio"])} | {number(ours["matmul_flops"] / 1e9)} | '
    f'{100 * ours["utilisation"]:.0f} % | {overhead} | '
    f'{ours["compile_seconds"]:.1f} | {ours["rounds"]}'
  )


def _open(row: Row, cells: int) -> str:
  return f'{row.name} | {row.batch_size} | - | not run | ' + ' | '.join(['-'] * (cells - 1))


def _not_run(rows: list[Row]) -> list[str]:
  """The commands of the rows that have not been measured."""
  if not rows:
    return []
  lines = ['\nNot run:\n']
  for row in rows:
    torch = ' --against=torch --torch-python=PYTHON' if row.has_peer else ''
    lines.append(f'- {row.name}: `python {" ".join(row.command())}{torch}`')
  if any(row.device == 'gpu' for row in rows):
    lines.append('\n' + GPU_RUN)
  return lines


def _reasons(rows: tuple[Row, ...]) -> list[str]:
  """The reasons for each row's speed, in as many columns as have a text."""
  columns = {'the reason for each gain': 'gained', 'what is missing': 'missing'}
  columns = {head: name for head, name in columns.items() if any(getattr(r, name) for r in rows)}
  if not columns:
    return []
  told = [(row.name, *(getattr(row, name) for name in columns.values())) for row in rows]
  lines = [' | '.join(cells) for cells in told if any(cells[1:])]
  return ['\n## Reasons\n', *table(' | '.join(['row', *columns]), lines)]


def _memory(row: Row, ours: dict, plain: dict | None) -> str:
  cells = [
    _mib(figures, key)
    for figures, key in (
      (ours, 'predicted_bytes'),
      (plain, 'predicted_bytes'),
      (ours, 'peak_bytes'),
      (ours, 'resident_before_bytes'),
      (plain, 'peak_bytes'),
    )
  ]
  traffic = ours['all_reduce_bytes']
  sizes = [f'{traffic[key]:,}' for key in ('predicted', 'found')]
  return ' | '.join([row.name, str(ours['batch_size']), *cells, *sizes])


def _startup(figures: dict | None) -> list[str]:
  """The table of the times of a start, or the command that measures them."""
  if figures is None:
    return ['\n## Start\n', 'Not run: `python -m tools.speed.speed --only=startup`']
  first_step = f'from the start of `launch.py --config={figures["config"]}` to its first step done'
  told = {
    'import_seconds': '`import sparsejax`',
    'first_step_cold_seconds': f'{first_step}, nothing compiled before',
    'first_step_warm_seconds': 'the same, with the programs that an earlier run compiled',
  }
  rows = []
  for name, what in told.items():
    least, most = (f'{seconds:.2f}' for seconds in figures['spread'][name])
    rows.append(f'{what} | {figures[name]:.2f} | {least} | {most}')
  return [
    '\n## Start\n',
    f'Each in {figures["rounds"]} fresh processes, one at a time.\n',
    *table('seconds | median | least | most', rows),
  ]


def _mib(figures: dict | None, key: str) -> str:
  """A size in MiB, or '-' if it was not measured."""
  size = (figures or {}).get('memory', {}).get(key)
  return '-' if size is None else f'{size / MIB:,.0f}'


def number(rate: float | None) -> str:
  """A rate to three digits, or to all digits before the point.

  Example:
    >>> number(9.876), number(98.76), number(98765.4), number(None)
    ('9.88', '98.8', '98,765', '-')
  """
  if rate is None:
    return '-'
  return f'{rate:,.{max(0, 3 - len(str(int(rate))))}f}'


def _ratio(ratio: float | None) -> str:
  return '-' if ratio is None else f'{ratio:.2f}'


def _way(name: str) -> str:
  """'compiled, channels last' for the benchmark's 'compiled_channels_last'."""
  how, _, layout = name.partition('_')
  return f'{how}, {layout.replace("_", " ")}'


def _machine(figures: dict) -> str:
  at = figures['environment']
  torch = f', PyTorch {at["torch"]}' if 'torch' in at else ''
  step = 'dtype' in figures  # a start has none
  kinds = kinds_of(at) or 'cpu device(s)'
  on = f', {figures["devices"]} {kinds}, {figures["dtype"]}' if step else ''
  flags = f', XLA_FLAGS="{at["xla_flags"]}"' if at.get('xla_flags') else ''
  return (
    f'Code of commit {kept.commit_of(at)}; {at["threads"]} of {at["cpus"]} cores of '
    f'{at["processor"]}{on}, Python {at["python"]}, JAX {at["versions"]["jax"]}{torch}{flags}.'
  )
