"""One experiment, from a config to its summary. The steps of a run, and where each is:

| step | where |
|---|---|
| the command line and the config file, which begins with the defaults of `base.get_config`, become settings, which are checked | `config`: `overrides`, `commandline`, `loading`, `check`; every setting is defined in `fields` |
| the settings become data, a model, a chain of transformations, and a plan of steps | `training.setup`, with `data.datasets`, `models.create`, `chain.optimizer` and `training.agenda` |
| the chain is built link by link: one that is not ours is Optax's own, such as `add_decayed_weights` | `chain.links` (names and order), `chain.rates` (schedules), `chain.durations`, `chain.pruning_links`; `chain.proximal_links` only for proximal links |
| the differences from the defaults are hashed, with the user's own code if a config file registers any | `config.identity`; `training.registry` |
| the run directory is claimed; a `RunState` is restored from it, or starts from the network of another run, or anew | `rundir.runs`, `rundir.checkpoint`, `rundir.state`; `init_from` |
| the network is trained, a segment of steps at a time, with events between them | `training.train`, with `step.steps`, `step.events` and `machine.parallel` |
| a cut is not an event but part of the optimizer's update | `transforms.pruning`, with the masks of `sparsity.mask_update` |
| lines are appended to `metrics.jsonl` | `training.writers`, `rundir.metrics` |
| the best network is measured, `trace.png` is drawn, and `summary.json` is written last | `outcome.finish`, with the counts of `sparsity.counting.measure`; `show.trace`, its panels in `show.trace_panels` |

`run.run` is that call: its `_begin` makes the `RunState`, its `_train` goes from there to the
summary. In it every function of `machine.hosts` is a plain call unless several processes train
together; `python` offers it to notebooks. `terminal` and `show` are what a person sees of it. "The
log" in comments is a research log of 2017-18, which is not part of the project; its experiments are
repeated here, and some defaults are taken from it.
"""
