"""The fields that every experiment has, in their blocks."""

from sparsejax.experiment.config.fields.blocks import LAYERS
from sparsejax.experiment.config.fields.field import DECAY, POSITIVE, STEPS, Field, Read
from sparsejax.experiment.config.setting_kinds import (
  Choice,
  Flag,
  Integer,
  Name,
  Names,
  Number,
  Optional,
  Table,
  Text,
)
from sparsejax.posterior.layers import DETERMINISTIC

SGD = ('add_decayed_weights', 'trace', 'scale_by_learning_rate')
_LARGEST = 2**31 - 1  # the largest number of a step
_VARIATIONAL = Read('layers with posteriors', lambda config: config['layers'] != DETERMINISTIC)
TEXTS = ('text', 'grammar')  # data sets whose examples are windows of bytes
_FIXED = ('digits', *TEXTS)  # data sets that are split in one way
_SPLIT = Read(
  'a data.name other than digits, text and grammar',
  lambda config: config['data']['name'] not in _FIXED,
)
_SHUFFLED = Read(
  f"the data.split 'shuffle' of {_SPLIT.words}",
  lambda config: _SPLIT.when(config) and config['data']['split'] == 'shuffle',
)
_EXAMPLES = Optional(Integer(1))
FIELDS: dict[str, Field | dict[str, Field]] = {
  'name': Field('', Name(), "set from the config's file name; is not hashed"),
  'method': Field('dense', Text(), 'what tables call this way of training; is not hashed'),
  'seed': Field(
    0, Integer(0, 2**32 - 1), 'the seed of everything random: initial weights, order of examples'
  ),
  'epochs': Field(180.0, Number(0.0, above=True), 'length of the run in training epochs'),
  'batch_size': Field(128, Integer(1), 'examples per step, over all devices together'),
  'chain': Field(SGD, Names(), 'links in the order in which updates pass through them'),
  'events': Field((), Names(), 'events that happen between steps'),
  'layers': Field(
    DETERMINISTIC,
    Choice((DETERMINISTIC, *LAYERS), own='posterior'),
    'the layers that networks are built from',
  ),
  'init_from': Field(
    None, Optional(Text()), 'run directory with the network that training starts from'
  ),
  'model': {
    'name': Field('lenet300', Text(), 'the network'),
    'width': Field(None, Optional(Integer(1, 2**16)), "planes of the stem; None: the paper's"),
    'depth': Field(None, _EXAMPLES, "blocks of a transformer; None: the network's default"),
    'heads': Field(None, _EXAMPLES, "heads of an attention; None: the network's default"),
    'widths': Field({}, Table(Integer(1, 2**16)), 'features of single layers, by path'),
    'dropout': Field(0.0, DECAY, 'rate in the dense network; it falls as weights are removed'),
    'dtype': Field(
      'float32', Choice(('float32', 'bfloat16')), 'type of the computation, not the parameters'
    ),
    'sync_batch_norm': Field(False, Flag(), 'moments over all devices, not over each alone'),
  },
  'data': {
    'name': Field(
      'digits',
      Text(),
      'digits, mnist, fashion_mnist, cifar10, cifar100, text, grammar or npz:PATH',
    ),
    'dir': Field(
      None, Optional(Text()), "tensorflow-datasets' folder; None: its default; is not hashed"
    ),
    'split': Field(
      'shuffle',
      Choice(('shuffle', 'first')),
      'shuffle: at random; first: the first examples train, the last ones validate',
      _SPLIT,
    ),
    'split_seed': Field(
      0, Integer(0, _LARGEST), "the seed of the shuffle, apart from the run's seed", _SHUFFLED
    ),
    'validation': Field(None, _EXAMPLES, "validation examples; None: the data set's default"),
    'limit': Field(None, _EXAMPLES, 'training examples used; None: all'),
    'context': Field(None, _EXAMPLES, 'bytes in a window of a text; None: 128; images have none'),
    'crop_padding': Field(0, Integer(0), 'pixels of zero padding before the random crop'),
    'flip': Field(False, Flag(), 'horizontal flips at random'),
    'cutout': Field(
      0, Integer(0), 'side in pixels of a random square set to the mean; 0: no square'
    ),
    'scale': Field(
      'standardised',
      Choice(('standardised', 'symmetric', 'centred')),
      'standardised: by channel; symmetric: 2 x - 1; centred: x - mean image',
    ),
  },
  'loss': {
    'label_smoothing': Field(
      0.0, DECAY, 'share of each label spread over all classes; training only'
    ),
  },
  'evaluation': {
    'every_epochs': Field(1.0, POSITIVE, 'time between two evaluations on the validation split'),
    'choose_by': Field(
      'loss', Choice(('loss', 'accuracy')), 'the validation figure that chooses the network'
    ),
    'batch_size': Field(
      500, Integer(1, 2**16), 'examples over all devices together; the last batch is padded'
    ),
    'batch_norm_batches': Field(
      50,
      Integer(1),
      "batches of unaugmented training examples for a deployed network's BatchNorm averages",
      _VARIATIONAL,
    ),
  },
  'log': {
    'every_steps': Field(50, STEPS, 'steps between two lines of metrics'),
    'checkpoint_every_epochs': Field(1.0, POSITIVE, 'time between two checkpoints'),
    'keep_checkpoints': Field(2, Integer(1), 'checkpoints to keep; a second one guards the first'),
    'tensorboard': Field(False, Flag(), 'whether to write event files beside metrics.jsonl'),
  },
}
