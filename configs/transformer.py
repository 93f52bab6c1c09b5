"""A small decoder of bytes on the sources of Python's standard library, dense or pruned gradually.

python launch.py --config=configs/transformer.py          dense
python launch.py --config=configs/transformer.py:0.1      keeps 10 % of the kernels of its blocks
python launch.py --config=configs/transformer.py --config.data.name=grammar    a made text

It has 4 blocks, 192 features, 6 heads and windows of 128 bytes: `model.depth`, `model.width`,
`model.heads`, `data.context`. Embeddings and the classifier stay dense. The summary has perplexity
and bits per byte of windows that do not overlap. The text is that of the Python that runs, and its
digest is part of the hash; the grammar has log 2 * 8 / 11 = 0.504 nats per byte, perplexity 1.656,
which no model can beat, and none reaches at the beginning of a window.

Minutes and expected loss: not run.
"""

from sparsejax.experiment.config import base


def get_config(density: float | None = None):
  config = base.get_config(('scale_by_adam', 'scale_by_learning_rate'))
  config.model.name, config.data.name = 'transformer', 'text'
  config.epochs, config.batch_size = 5.0, 32
  rate = dict(schedule='cosine', value=1e-3, warmup_steps=100)
  config.scale_by_learning_rate = dict(learning_rate=rate)
  if density is not None:
    config.method, config.chain = 'gradual magnitude pruning', (*config.chain, 'prune')
    base.complete(config)
    config.prune.update(schedule='cubic', begin_epochs=1.0, end_epochs=4.0, every_steps=100)
    config.prune.update(criterion='magnitude', parameters='kernels', exclude=('^classifier/',))
    config.prune.update(allocation='uniform', density=density)
  config.evaluation.batch_size = 64
  return config
