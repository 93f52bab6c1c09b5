"""The rows of the pages on CIFAR-10 at full size, in order of importance.

The tier GPU needs a GPU; A to D are for CPUs, all rows of one tier before the next.
"""

from tools.pages.entries import Entry, Page

GPU = 'GPU'
SHORT = 'configs/cifar10_short.py'
ON_GPU = (  # the last two do not change the experiment
  '--config.model.dtype=bfloat16',
  '--config.log.every_steps=156',  # two lines an epoch
  '--config.log.checkpoint_every_epochs=10',
)
OF_ALL = {'5_percent': 0.05, '1_percent': 0.01, '0.5_percent': 0.005, '0.1_percent': 0.001}
SCALES_STAY = "--config.prune.exclude=('/scale$',)"
THREE = (0, 1, 2)


def _short(model, method, point='', *, name='', tier, seeds=(0,), trunk='', overrides=(), width=0):
  """A row of the short recipe, whose label is MODEL[_WIDTH]_METHOD[_NAME]."""
  network = f'{model}_width{width}' if width else model
  parts = [network, method, str(name or point)]
  argument = ','.join(filter(None, (model, method, str(point))))
  changes = (f'--config.model.width={width}',) if width else ()
  return Entry(
    '_'.join(filter(None, parts)),
    f'{SHORT}:{argument}',
    (*changes, *overrides),
    seeds,
    trunk=f'{network}_{trunk}' if trunk else '',
    tier=tier,
  )


def _cut_exactly(model, tier, seeds, width=0):
  """The log's own experiment: a trunk, its control, and four cuts of all parameters."""
  same = dict(tier=tier, seeds=seeds, width=width)
  return (
    _short(model, 'trunk', **same),
    _short(model, 'exact', 1.0, name='control', trunk='trunk', **same),
    *(
      _short(model, 'exact', fraction, name=name, trunk='trunk', **same)
      for name, fraction in OF_ALL.items()
    ),
  )


def _on_kernels(model, tier, seeds):
  """Rows that prune only kernels, not BatchNorm or biases: gradually, to ERK densities."""
  return tuple(
    _short(model, 'gradual', OF_ALL[n], name=n, trunk='trunk', tier=tier, seeds=seeds)
    for n in ('1_percent', '0.1_percent')
  )


def _narrow(model, *widths):
  return tuple(_short(model, 'dense', width=width, tier='B') for width in widths)


def _breakdown(model):
  """How few of the kernels' weights still train: in one cut, by global rank with and without a
  floor, and by ERK."""
  rules = {
    'rank': (),
    'rank_no_floor': ('--config.prune.floor=0',),
    'erk': ('--config.prune.allocation=erk',),
  }
  return tuple(
    _short(
      model,
      'exact',
      percent / 100,
      name=f'kernels_{rule}_{percent:g}_percent',
      trunk='trunk',
      tier='B',
      overrides=('--config.prune.parameters=kernels', *changes),
    )
    for rule, changes in rules.items()
    for percent in (2, 1, 0.5, 0.3, 0.2, 0.1)
  )


# The log's weight decays at the threshold of 0.02. What shrinks a weight until the cut is decay
# times the sum of the learning rates: 60 epochs of 312 steps at 0.1 there; here 30 of 351 along
# half a cosine from 0.2, less what the rise takes away: 1,872 and 948.
DECAYS = {decay: round(decay * 1872 / 948, 7) for decay in (5e-3, 1e-3, 5e-4, 5e-5)}


def _by_decay(model):
  rows = []
  for name, decay in DECAYS.items():
    changes = (f'--config.add_decayed_weights.weight_decay={decay}',)
    label = f'decay_{name:g}'
    rows += [
      _short(model, 'trunk', name=label, tier='B', overrides=changes),
      _short(
        model, 'threshold', 0.02, name=label, trunk=f'trunk_{label}', tier='B', overrides=changes
      ),
    ]
  return tuple(rows)


def _from_scratch(model):
  """Four ways to the same ERK densities, and the first of them at twice the epochs."""
  names = ('5_percent', '1_percent')
  longer = ('--config.epochs=100', '--config.prune.end_epochs=75.0')
  return (
    _short(model, 'dense', tier='B'),
    *(_short(model, m, OF_ALL[n], name=n, tier='B') for m in ('rigl', 'set') for n in names),
    *(
      _short(model, m, OF_ALL[n], name=n, trunk='trunk', tier='B')
      for m in ('random', 'gradual')
      for n in names
      if (m, n) != ('gradual', '1_percent')  # already among the rows
    ),
    *(
      _short(model, 'rigl', OF_ALL[n], name=f'{n}_100_epochs', tier='B', overrides=longer)
      for n in names
    ),
  )


def _posteriors(model, tier, *weights):
  return tuple(
    _short(model, method, weight, trunk='trunk', tier=tier)
    for weight in weights
    for method in ('sparse_vd', 'bc')
  )


def _shrunk(model):
  strengths = ('1e-5', '3e-5', '1e-4')
  return tuple(_short(model, 'l1', s, trunk='trunk', tier='C') for s in strengths)


MODELS = ('resnet20', 'mobilenet', 'vgg16')
SHORT_ROWS = (
  *(row for m in MODELS for row in _cut_exactly(m, 'A', THREE if m == 'resnet20' else (0,))),
  *(row for m in MODELS for row in _on_kernels(m, 'A', THREE if m == 'resnet20' else (0,))),
  *(
    _short(
      'mobilenet',
      'exact',
      OF_ALL[name],
      name=f'{name}_scales_stay',
      trunk='trunk',
      tier='A',
      overrides=(SCALES_STAY,),
    )
    for name in ('0.5_percent', '0.1_percent')
  ),
  *_from_scratch('resnet20'),
  *_narrow('resnet20', 8, 4),
  *_narrow('mobilenet', 16, 8),
  *_narrow('vgg16', 32, 16, 8),
  *_posteriors('vgg16', 'B', 1.0),
  *_breakdown('resnet20'),
  *_by_decay('resnet20'),
  *_cut_exactly('resnet50', 'C', (0,), width=16),
  *(row for m in MODELS for row in _shrunk(m)),
  _short('resnet20', 'rewound', 0.1, name='10_percent', trunk='trunk', tier='C'),
  *_cut_exactly('resnet50', 'D', (0,), width=32),
  *_posteriors('vgg16', 'D', 0.1),
)
# Seconds of 180 epochs and of compiling them, as on an H100 in 2026.
SECONDS = {'vgg16': 120.0 + 60.0, 'resnet50': 510.0 + 150.0, 'mobilenet': 180.0 + 60.0}


def _on_gpu(model, name, config):
  """A row of the log's own recipe at full length."""
  same = dict(overrides=ON_GPU, seeds=(0,), tier=GPU, seconds=SECONDS[model])
  return Entry(f'{model}_180_{name}', config, **same)


GPU_ROWS = (
  *(
    _on_gpu(model, name, f'configs/{model}_dc.py:{fraction}')
    for model, points in (
      ('vgg16', ('0.1_percent', '0.5_percent', '1_percent')),
      ('resnet50', ('0.1_percent', '1_percent', '0.5_percent', '5_percent', 'dense')),
      ('vgg16', ('5_percent', 'dense')),
      ('mobilenet', (*OF_ALL, 'dense')),
    )
    for name, fraction in ((n, OF_ALL.get(n, 1.0)) for n in points)
  ),
  _on_gpu('vgg16', 'l1', 'configs/vgg16_l1.py'),
  _on_gpu('vgg16', 'sparse_vd', 'configs/vgg16_sparse_vd.py'),
  _on_gpu('vgg16', 'bc_0.1', 'configs/vgg16_bc.py:0.1'),
  _on_gpu('vgg16', 'bc_1.0', 'configs/vgg16_bc.py:1.0'),
  _on_gpu('resnet50', 'bc', 'configs/resnet50_bc.py'),
)


def _trial(row: Entry, name: str, *overrides: str) -> Entry:
  """A row of tier A with something changed, before the others of its tier."""
  label = f'{row.label}_{name}'
  return row._replace(label=label, overrides=(*row.overrides, *overrides), seeds=(0,), tier='@')


def _peak(value: float) -> str:
  return f'--config.scale_by_learning_rate.learning_rate.value={value}'


ROWS = {row.label: row for row in SHORT_ROWS}
TRIALS = (
  ROWS['resnet20_trunk']._replace(seeds=(0,), tier='@'),
  _trial(ROWS['resnet20_trunk'], 'peak_0.1', _peak(0.1)),
  ROWS['resnet20_exact_1_percent']._replace(seeds=(0,), tier='@'),
  _trial(ROWS['resnet20_exact_1_percent'], 'peak_0.05', _peak(0.05)),
  _trial(ROWS['resnet20_exact_1_percent'], 'peak_0.2', _peak(0.2)),
  ROWS['mobilenet_trunk']._replace(seeds=(0,), tier='@'),
  _trial(ROWS['mobilenet_trunk'], 'peak_0.05', _peak(0.05)),
)

PAGES = {
  'cifar10_trials': Page(
    'How the short recipe for CIFAR-10 was chosen',
    'A row whose name ends with a peak of the learning rate differs only in that peak from the row '
    'above it that has the rest of its name. What counts here is validation; the test set is read '
    'once, at the end of every run, and nothing was chosen by it.',
    TRIALS,
    runs='cifar10',
  ),
  'cifar10': Page(
    'CIFAR-10 at full size',
    'To be written when there are rows.',
    (*SHORT_ROWS, *GPU_ROWS),
    lines=90,
    traces='_exact_1_percent$|_0.1_percent$|_bc_|_sparse_vd_',
  ),
}
