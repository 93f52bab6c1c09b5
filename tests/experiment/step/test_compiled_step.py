"""What the compiled training step is made of: products of the precision asked for, one exchange."""

import functools
import re
from unittest import mock

import jax
import pytest
from experiments import QUICK, build

from sparsejax.benchmarks import programs, traffic
from sparsejax.experiment.machine import parallel

pytestmark = pytest.mark.usefixtures('compiling_is_quick', '_from_the_root')

PRODUCT = re.compile(
  r'stablehlo\.(?:dot_general|convolution)\(?.*: \(tensor<(.+?)>, tensor<(.+?)>\) ->'
)


@functools.cache
def subject(*arguments):
  """What a command line's programs share."""
  return programs.Subject(build(*arguments))


def lowered(of):
  return programs.training_step(of, of.experiment.tx).lower()


def products(program):
  """The precisions of each product's two sides, 'bf16' or 'f32'."""
  return [tuple(side.split('x')[-1] for side in found) for found in PRODUCT.findall(program)]


NETWORKS = {
  'dense layers': (),
  'residual': ('--config.model.name=resnet20', '--config.model.width=4'),
  'depthwise': ('--config.model.name=mobilenet', '--config.model.width=4'),
  'posteriors': (
    '--config.layers=group_horseshoe',
    "--config.chain=('add_kl_gradients','scale_by_adam','scale_by_learning_rate')",
  ),
}


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
@pytest.mark.parametrize(
  ('name', 'asked', 'side'),
  [*((name, 'bfloat16', 'bf16') for name in NETWORKS), ('dense layers', 'float32', 'f32')],
)
def test_every_product_of_a_step_is_of_the_precision_asked_for(name, backend, asked, side):
  """In both passes, in the program given to XLA, which on processors without them widens them."""
  of = subject(QUICK, f'--config.model.dtype={asked}', *NETWORKS[name])
  with mock.patch.object(jax, 'default_backend', return_value=backend):
    found = products(lowered(of).as_text())
  assert len(found) >= 3 * 3 - 1  # of three layers or more, the first of which has no input's
  assert set(found) == {(side, side)}


def test_parameters_and_what_is_exchanged_stay_float32():
  of = subject(QUICK, '--config.model.dtype=bfloat16')
  assert {leaf.dtype.name for leaf in jax.tree.leaves(of.variables)} == {'float32'}
  exchanged = traffic.ALL_REDUCE.findall(lowered(of).compile().as_text())
  assert exchanged
  assert all('bf16' not in result for result in exchanged)


# Numbers that XLA finds to be others' equals, and exchanges once. Where a block ends in a sum of
# two BatchNorms, the gradients of their offsets (8 and 16); of the two factors of the horseshoe's
# scales the gradients of their log means, a layer's and its inputs' (64, 300 and 100).
SPARED = {'dense layers': 0, 'residual': 8 + 16, 'posteriors': 3 + 464}


@pytest.mark.parametrize('name', SPARED)
def test_a_step_exchanges_what_its_parameters_predict(name):
  assert parallel.device_count() > 1
  of = subject(QUICK, *NETWORKS[name])
  program = lowered(of).compile().as_text()
  predicted = traffic.predicted_bytes(of.variables)
  assert traffic.found_bytes(program) == predicted - 4 * SPARED[name]


def test_the_prediction_is_that_of_the_trees():
  of = subject(QUICK)  # 64 -> 300 -> 100 -> 10
  parameters = 64 * 300 + 300 + 300 * 100 + 100 + 100 * 10 + 10
  assert traffic.predicted_bytes(of.variables) == 4 * (parameters + 2)


@pytest.mark.parametrize(
  ('program', 'expected'),
  [
    ('', 0),
    ('%r = f32[] all-reduce(f32[] %x), to_apply=%add', 4),
    ('%r = bf16[8,2]{1,0} all-reduce-start(%x), to_apply=%add', 32),
    ('%r = (f32[3,4]{1,0}, /*index=1*/s32[5]{0}) all-reduce(%x, %y)', 68),
    ('%r = f32[9]{0} all-reduce-done(%x)\n%s = f32[2]{0} add(%all-reduce.1, %y)', 0),
  ],
)
def test_bytes_are_read_off_a_program(program, expected):
  assert traffic.found_bytes(program) == expected
