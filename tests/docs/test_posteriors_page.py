"""The programs of docs/posteriors.md run as they stand, and do what the page says."""

import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sparsejax import posterior

pytestmark = pytest.mark.usefixtures('compiling_is_quick')
PAGE = pathlib.Path(__file__).parents[2] / 'docs' / 'posteriors.md'


def test_the_page():
  start, linen, of_nnx, says = re.findall(r'```python\n(.*?)```', PAGE.read_text(), re.DOTALL)
  names: dict = {}
  exec(start + linen, names)
  assert names['logits'].shape == (64, 4)
  assert set(names['network']['fc']) == {'kernel', 'bias'}
  exec(of_nnx, names)
  deployed = posterior.deploy(names['of_module'], 3.0)
  for name in ('hidden', 'out'):
    found = nnx.state(names['plain'], nnx.Param)[name]['kernel'][...]
    np.testing.assert_array_equal(found, deployed[name]['kernel'])
  means, plain = (names[name](names['images']) for name in ('module', 'plain'))
  assert bool(jnp.all(jnp.isfinite(plain)))
  np.testing.assert_allclose(means, plain, atol=1e-5)  # nothing is that noisy after 20 steps
  exec(says, names)
  assert set(names['costs']) == {'hidden', 'out'}
  assert set(names['noisy']) == {'conv', 'fc'}
