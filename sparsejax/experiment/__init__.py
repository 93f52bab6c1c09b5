"""One experiment, from a config to its summary. The call, room by room:

| step | where |
|---|---|
| the command line and the config file, which begins with the defaults of `base.get_config`, become settings, which are checked | `config`: `overrides`, `commandline`, `loading`, `check`; every setting is defined in `fields` |
| the settings become data, a model, a chain of transformations, and a plan of steps | `training.setup`, with `data.datasets`, `models.create`, `chain.optimizer` (with `chain.pruning_links` and `chain.proximal_links`) and `training.agenda` |
| the differences from the defaults, and the user's own code, are hashed | `config.identity`, `training.own_code` |
| the run directory is claimed; a `RunState` is restored from it, or starts from the network of another run, or anew | `rundir.runs`, `rundir.checkpoint`, `rundir.state`; `init_from` |
| the network is trained, a segment of steps at a time, with events between them | `training.train`, with `step.steps`, `step.events` and `machine.parallel` |
| a cut is not an event but part of the optimizer's update | `transforms.pruning`, with the masks of `sparsity.mask_update` |
| the best network is measured, and `summary.json` is written last | `outcome.finish`, with the figures of `sparsity.counting.measure` |

`run.run` is that call: its `_begin` makes the `RunState`, its `_train` goes from there to the
summary. In it every function of `machine.hosts` is a plain call unless several processes train
together; `python` offers it to notebooks. `terminal` and `show` are what a person sees of it. "The
log" in comments is a research log of 2017-18, which is not part of the project; its experiments are
repeated here, and some defaults are taken from it.
"""
