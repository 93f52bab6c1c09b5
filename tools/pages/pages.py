"""The committed pages of results: the text above each table, and its rows."""

from tools.pages.cifar10 import plan as cifar10
from tools.pages.entries import Entry, Page
from tools.pages.shipped import plan as shipped

SHORTENED = (
  '--config.epochs=15',
  '--config.data.limit=10000',
  '--config.data.validation=2000',
  '--config.scale_by_learning_rate.learning_rate.every_epochs=5',
  '--config.log.every_steps=20',
)
CUT = (*SHORTENED, '--config.prune.begin_epochs=5')
EXACT_5 = ('--config.prune.allocation=global_rank', '--config.prune.density=0.05')


def _narrow(width: int) -> tuple[str, ...]:
  return (*SHORTENED, f'--config.model.width={width}')


LIMITED = ('--config.data.limit=10000', '--config.data.validation=2000')
DENSE_30 = (
  *LIMITED,
  '--config.epochs=30',
  '--config.scale_by_learning_rate.learning_rate.every_epochs=10',
)
BAYESIAN_30 = (  # the warm-up is a third of the run, the learning rate falls over its last half
  *LIMITED,
  '--config.epochs=30',
  '--config.add_kl_gradients.weight.end_epochs=10.0',
  '--config.scale_by_learning_rate.learning_rate.begin_epochs=15.0',
)


def _short_run(epochs: int, rate: float, width: int) -> tuple[str, ...]:
  """Options of a short run that is long enough to remove filters: log alpha rises from -9 to -3.

  Under Adam these 6 units take about 6 over the learning rate: 2,000 steps at 0.003.
  """
  return (
    '--config.data.limit=5000',
    '--config.data.validation=1000',
    '--config.batch_size=32',
    f'--config.epochs={epochs}',
    f'--config.add_kl_gradients.weight.end_epochs={epochs / 3:.1f}',
    f'--config.scale_by_learning_rate.learning_rate.initial={rate}',
    f'--config.scale_by_learning_rate.learning_rate.begin_epochs={epochs / 2}',
    f'--config.model.width={width}',
  )


def _no_warm_up(weight: int) -> str:
  """Returns the option for a warm-up that starts at its final value."""
  return f'--config.add_kl_gradients.weight.initial={weight}'


AT_30 = ('--config.lobs.at_epochs=30', '--config.prune.begin_epochs=30')
BY_MAGNITUDE = '--config.lobs.method=magnitude'
FRACTIONS = (0.5, 0.1, 0.04, 0.0178, 0.01)  # shares of the weights kept: 2x to 100x
STRENGTHS = ('3e-5', '2e-4', '6e-4', '1.5e-3', '3e-3')  # chosen to span the same range
SHORT = (
  '--config.epochs=36',
  '--config.scale_by_learning_rate.learning_rate.every_epochs=12',
)
GRADUAL = (*SHORT, '--config.prune.begin_epochs=3', '--config.prune.end_epochs=22')
EXCHANGING = (*SHORT, '--config.prune.end_epochs=27')
SHRUNK = (*SHORT, '--config.prune.begin_epochs=18', '--config.proximal_l1.strength.every_epochs=18')


def _methods(model: str, methods: dict[str, tuple[str, ...]]) -> tuple[Entry, ...]:
  """A row for each method and operating point, under the name `method/point`."""
  dense = Entry('dense', f'configs/{model}_gradual.py:1.0', methods['gradual'])
  pruned = [
    Entry(f'{method}_{1 / fraction:.0f}x', f'configs/{model}_{method}.py:{fraction}', changes)
    for method, changes in methods.items()
    for fraction in FRACTIONS
  ]
  shrunk = [Entry(f'l1_{s}', f'configs/{model}_l1.py:{s}', SHRUNK) for s in STRENGTHS]
  return (dense, *pruned, *shrunk)


ABLATED = (
  '--config.epochs=40',
  '--config.data.validation=1000',
  '--config.scale_by_learning_rate.learning_rate.begin_epochs=20',
)
OF_FOUR = ('--config.add_kl_gradients.weight.end_epochs=4',)  # as the paper's warm-up
OF_36_EPOCHS = (
  '--config.epochs=36',
  '--config.add_kl_gradients.weight.end_epochs=8',
  '--config.scale_by_learning_rate.learning_rate.begin_epochs=24',
  '--config.scale_by_learning_rate.learning_rate.initial=0.005',
)
AT_FIRST = tuple(
  f'--config.group_horseshoe.thresholds.{layer}' for layer in ('fc1=1.75', 'fc2=2.0')
)
AT_3 = tuple(f'--config.group_horseshoe.thresholds.{n}=3.0' for n in ('conv1', 'fc1', 'fc2'))
OF_45_EPOCHS = ('--config.epochs=45',)
THREE_TIMES = ('--config.scale_by_learning_rate.learning_rate.initial=0.003',)
OF_60_EPOCHS = (
  *THREE_TIMES,
  '--config.epochs=60',
  '--config.scale_by_learning_rate.learning_rate.begin_epochs=36',
)
OF_120_EPOCHS = (
  *THREE_TIMES,
  '--config.epochs=120',
  '--config.add_kl_gradients.weight.begin_epochs=1.5',
)
OF_300_EPOCHS = (
  '--config.epochs=300',
  '--config.add_kl_gradients.weight.end_epochs=75',
  '--config.scale_by_learning_rate.learning_rate.begin_epochs=195',
)
WRONG = 'tools/wrong_variance.py'
NAMED = '--config.method=Bayesian compression (wrong variance)'

PAGES = {
  'mnist_methods': Page(
    'Five ways to a sparse LeNet-300-100 on MNIST, and the best of them on LeNet-5',
    'Every run of LeNet-300-100 has 36 epochs, the same initial weights for its seed, the same '
    'SGD (learning rate 0.1 falling tenfold after 12 and 24 epochs, momentum 0.9, weight decay '
    '5e-4) and the same split: 55,000 images are for training, 5,000 choose the network, and the '
    'test set is read once. Gradual and random pruning remove weights from epoch 3 to 22; RigL '
    'and SET are sparse from the first step and exchange weights until epoch 27; L1 shrinks '
    'weights until epoch 18, and those that are zero by then stay zero. All methods are '
    'unstructured; biases (410) are not pruned and not counted in the compression. Dynamic '
    'network surgery (Guo et al. 2016): 56x at 1.99 %; Sparse VD (Molchanov et al. 2017): 68x at '
    '1.92 %; pruning alone in Deep Compression (Han et al. 2015): 12x at 1.59 %. LeNet-5 is '
    'pruned gradually in 45 epochs, on images shifted by up to two pixels; dynamic network '
    'surgery: 108x at 0.91 %. Active weights are counted by value: some of the weights that SET '
    'grows never leave zero, in fc1, where pixels that are always black give them no gradient, '
    'and also in fc2 and fc3.',
    (
      *_methods(
        'lenet300',
        {'gradual': GRADUAL, 'rigl': EXCHANGING, 'set': EXCHANGING, 'random': GRADUAL},
      ),
      Entry('lenet5_gradual_108x', 'configs/lenet5_gradual.py'),
    ),
    lines=40,
    traces='^dense|_56x|l1_1.5e-3|lenet5',
    figure='LeNet-300-100 on MNIST: mean of three seeds, bars of one standard deviation',
  ),
  'mnist_lobs': Page(
    'L-OBS on MNIST: surgery against zeroing the smallest weights',
    'Dense training, one cut to 7 % of the weights, a short retraining. L-OBS moves the remaining '
    'weights so that every layer answers as in the dense network; magnitude zeroes the smallest '
    'weights, as many in each layer and at the same step. The dense rows are the controls of '
    'equal length. LeNet-300-100 trains for 30 epochs before the cut and 15 after it; LeNet-5 for '
    '12 and 3, without shifted images. Dong et al. 2017: LeNet-300-100 1.76 % dense, 3.10 just '
    'cut, 1.82 retrained; LeNet-5 1.27, 3.21, 1.27.',
    (
      Entry('lenet300_dense', 'configs/lenet300_lobs.py:1.0', AT_30),
      Entry('lenet300_lobs', 'configs/lenet300_lobs.py', AT_30),
      Entry('lenet300_magnitude', 'configs/lenet300_lobs.py', (*AT_30, BY_MAGNITUDE)),
      Entry('lenet5_dense', 'configs/lenet5_lobs.py:1.0', seeds=(0,)),
      Entry('lenet5_lobs', 'configs/lenet5_lobs.py', seeds=(0,)),
      Entry('lenet5_magnitude', 'configs/lenet5_lobs.py', (BY_MAGNITUDE,), seeds=(0,)),
    ),
    lines=60,
    traces='_lobs$|lenet5_magnitude',
  ),
  'mnist_bayesian': Page(
    'Posteriors over weights on MNIST: sparse variational dropout and Bayesian compression',
    '59,000 images are for training, the network of the last step is deployed, and the test set '
    'is read once, and once more with weights of fewer bits. Compression counts weights, not '
    'biases; with bits it is 32 bits for every weight over the bits of the remaining ones. With '
    'sparse variational dropout LeNet-5 trains for all 200 epochs, once more at three times the '
    'learning rate (3x), and in other rows for 45 epochs, or 60 at that rate; with the grouped '
    'priors it trains for the 100 epochs of the configs, for 36, and for 300, which began on a '
    'GPU and continued on two cores. Until row 3x had trained, weights of sparse variational '
    'dropout whose log alpha was below -8 had no gradient from the KL: 1,375 of 2,265 ended '
    'there. The row of 120 epochs has this gradient, and a warm-up that begins earlier in '
    'proportion to its higher rate. The horseshoe of 100 epochs takes its thresholds from the '
    'histograms of the run of 36 epochs; the thresholds of 3 in that run cut filters of conv1 '
    'that it needs. The posterior of 100 epochs is deployed again (again) with other thresholds, '
    'after an error of 1.41 % on the test set, and that of 300 epochs with the thresholds of the '
    'least validation loss. The last table has what else was tried, on 1,000 validation images '
    'only. Molchanov et al. 2017: LeNet-300-100 68x at 1.92 %, LeNet-5 280x at 0.75 %. Louizos et '
    'al. 2017, normal-Jeffreys: 278-98-13 at 1.8 %, 9x, 36x with bits; 8-13-88-13 at 1.0 %, 108x, '
    '361x; horseshoe: 311-86-14 at 1.8 %, 9x, 23x; 5-10-76-16 at 1.0 %, 156x, 419x.',
    (
      Entry('lenet300_sparse_vd', 'configs/lenet300_sparse_vd.py'),
      Entry('lenet300_bc_gnj', 'configs/lenet300_bc_gnj.py'),
      Entry('lenet300_bc_ghs', 'configs/lenet300_bc_ghs.py'),
      Entry('lenet5_sparse_vd', 'configs/lenet5_sparse_vd.py', seeds=(0,)),
      Entry('lenet5_sparse_vd_45', 'configs/lenet5_sparse_vd.py', OF_45_EPOCHS, seeds=(0,)),
      Entry('lenet5_sparse_vd_60', 'configs/lenet5_sparse_vd.py', OF_60_EPOCHS, seeds=(0,)),
      Entry('lenet5_sparse_vd_3x', 'configs/lenet5_sparse_vd.py', THREE_TIMES, seeds=(0,)),
      Entry('lenet5_sparse_vd_120', 'configs/lenet5_sparse_vd.py', OF_120_EPOCHS, seeds=(0,)),
      Entry('lenet5_bc_gnj', 'configs/lenet5_bc_gnj.py', seeds=(0,)),
      Entry('lenet5_bc_gnj_300', 'configs/lenet5_bc_gnj.py', OF_300_EPOCHS, seeds=(0,)),
      Entry('lenet5_bc_gnj_36', 'configs/lenet5_bc_gnj.py', OF_36_EPOCHS, seeds=(0,)),
      Entry('lenet5_bc_ghs', 'configs/lenet5_bc_ghs.py', AT_FIRST, seeds=(0,)),
      Entry(
        'lenet5_bc_ghs_again',
        overrides=('--thresholds=fc1=2.3,fc2=3.0',),
        seeds=(0,),
        deploys='lenet5_bc_ghs',
      ),
      Entry('lenet5_bc_ghs_300', 'configs/lenet5_bc_ghs.py', OF_300_EPOCHS, seeds=(0,)),
      Entry(
        'lenet5_bc_ghs_300_again',
        overrides=('--thresholds=conv1=4.98',),
        seeds=(0,),
        deploys='lenet5_bc_ghs_300',
      ),
      Entry('lenet5_bc_ghs_36', 'configs/lenet5_bc_ghs.py', OF_36_EPOCHS + AT_3, seeds=(0,)),
    ),
  ),
  'ablations_kl': Page(
    'What kept posteriors from working in 2017: two faults, one at a time',
    'On 13 October 2017 the log found that variational dropout zeroed every weight, and did not '
    'find out why: its KL was divided by the number of batches, not of examples, and had its full '
    'weight from the first step. On 2 February 2018 the variances of its posteriors were wrong: '
    'the KL took log-variances for log standard deviations. Every row of sparse variational '
    'dropout (LeNet-300-100 on MNIST, 40 epochs) follows the right recipe except for what its '
    'name says; in batches of 100 a KL over batches is 100 times as strong. The rows of Bayesian '
    'compression (gnj: normal-Jeffreys, 40 epochs) differ in how the KL of the weights reads '
    'their variances; the KL in the figure is the one that each row was trained with. The result: '
    'with its full weight from the first step even the right KL zeroes every weight, so the '
    'warm-up is what saves it; with a warm-up, a KL over batches leaves 278 weights and an error '
    'of 10 %, so both faults matter. The three runs with the wrong variance have an error of 2.4 '
    'to 2.6 %, the one with the right variance has 2.1 %, and the three prune somewhat more: this '
    'fault alone does not explain what failed.',
    (
      Entry('sparse_vd', 'configs/lenet300_sparse_vd.py', ABLATED),
      Entry('batches_at_once', 'configs/lenet300_sparse_vd.py:100', (*ABLATED, _no_warm_up(100))),
      Entry('batches_warmed_up', 'configs/lenet300_sparse_vd.py:100', ABLATED),
      Entry('examples_at_once', 'configs/lenet300_sparse_vd.py', (*ABLATED, _no_warm_up(1))),
      Entry('gnj', 'configs/lenet300_bc_gnj.py', (*ABLATED, *OF_FOUR)),
      Entry(
        'gnj_wrong_variance',
        'configs/lenet300_bc_gnj.py',
        (*ABLATED, *OF_FOUR, NAMED),
        program=WRONG,
      ),
    ),
    lines=60,
    traces='^sparse_vd|^gnj',
    curves=(('13 October: Sparse VD', 'sparse|at_once|warm'), ('2 February: GNJ', 'gnj')),
  ),
  'cifar10_bayesian': Page(
    'Bayesian compression on CIFAR-10, shortened to what two CPU cores train in an hour',
    "The KL's weight rises over the first third of a run, and the learning rate falls to 0 over "
    'the last half (dense: tenfold every ten epochs); the whole test set is read once. allconv: '
    'the first 10,000 training images, 2,000 to validate, 30 epochs of 180. The log, on all '
    'images and with variances that it later found to be wrong: 89 % dense, 85 % with a tenth of '
    'the KL, 71 % with all of it. In these 2,340 steps hardly any filter is removed. VGG16 and '
    'ResNet50, 1/8 and 1/16 as wide as they should be: 5,000 images, 1,000 to validate, batches '
    'of 32, 40 epochs at three times the rate and 20 at six times, so that filters have enough '
    'steps to be removed. With so few images all of the KL (vgg16_bc_1.0) outweighs what the '
    'filters learn; in ResNet50, at 0.3 of it, whole residual blocks are removed. The figures in '
    'the tables are of the delivered network, whose BatchNorm averages are recomputed without '
    'noise, on images that are not augmented. In the traces of allconv_bc and vgg16_bc validation '
    'uses the averages of the noisy network. At the end, the accuracies with these and with the '
    'recomputed averages are, for allconv, 73.8 and 71.3 % with a tenth of the KL and 71.9 and '
    '70.3 % with all of it; for VGG16, 60.1 and 63.0 % with a tenth and 17.5 and 36.3 % with all.',
    (
      Entry('allconv_dense', 'configs/allconv_dense.py', DENSE_30, (0,)),
      Entry('allconv_bc_0.1', 'configs/allconv_bc.py:0.1', BAYESIAN_30, (0,)),
      Entry('allconv_bc_1.0', 'configs/allconv_bc.py:1.0', BAYESIAN_30, (0,)),
      Entry('vgg16_bc_0.1_width8', 'configs/vgg16_bc.py:0.1', _short_run(40, 0.003, width=8), (0,)),
      Entry('vgg16_bc_1.0_width8', 'configs/vgg16_bc.py:1.0', _short_run(40, 0.003, width=8), (0,)),
      Entry(
        'resnet50_bc_0.3_width4', 'configs/resnet50_bc.py:0.3', _short_run(20, 0.006, width=4), (0,)
      ),
    ),
  ),
  'mnist_deep_compression': Page(
    'Deep Compression on MNIST',
    'Weights are kernels, as the papers count them; compression = weights / active weights. '
    'Han et al. 2015, pruning alone: LeNet-300-100 12x at 1.59 % test error, LeNet-5 12x at '
    '0.77 % (all three stages, with fewer bits per weight: 40x at 1.58 %, 39x at 0.74 %); dynamic '
    'network surgery: 56x at 1.99 % and 108x at 0.91 %. 55,000 images are for training, 5,000 '
    'choose the network, and the test set is read once. LeNet-5 sees its training images shifted '
    'by up to two pixels, unlike in the papers; the last row has no shifts.',
    (
      Entry('lenet300_dc_12x', 'configs/lenet300_dc.py'),
      Entry('lenet300_dc_56x', 'configs/lenet300_dc.py:0.0178'),
      Entry('lenet300_gradual_56x', 'configs/lenet300_gradual.py'),
      Entry('lenet5_dc_12x', 'configs/lenet5_dc.py'),
      Entry(
        'lenet5_dc_12x_not_shifted',
        'configs/lenet5_dc.py',
        ('--config.data.crop_padding=0',),
        (0,),
      ),
    ),
  ),
  **cifar10.PAGES,
  **shipped.PAGES,
  'cifar10_shortened': Page(
    'CIFAR-10, shortened to what two CPU cores train in minutes',
    'The first 10,000 training images, 15 epochs, the learning rate falling tenfold every 5, the '
    'cut at epoch 5; 2,000 images choose the network, and the whole test set is read once. These '
    'runs show that a network trains, is cut and recovers; their accuracies cannot be compared '
    'with any at full size. The butterflies are a quarter and an eighth as wide as they should be.',
    (
      Entry('allconv_threshold', 'configs/allconv_dc.py', CUT, (0,)),
      Entry(
        'resnet50_width8_5_percent',
        'configs/resnet50_dc.py',
        (*CUT, *EXACT_5, '--config.model.width=8'),
        (0,),
      ),
      Entry('butterfly_log_width16', 'configs/butterfly_resnet18.py', _narrow(16), (0,)),
      Entry('butterfly_general_width8', 'configs/butterfly_resnet18.py:general', _narrow(8), (0,)),
    ),
  ),
}
