"""Training reads from the top: `config` (what an experiment says) -> `stages` (one file a stage:
its task, its loss) -> `loop` (one run) -> `step` (one update).

`mesh` and `distributed` spread it over devices and hosts (`joining`: who they are; `chips`: whether
a TPU's are free), `checkpoint` keeps it, `optim` updates it, `goodput`, `mfu`, `metrics` and
`progress` watch it.
"""
