"""Speed of backends, with confidence intervals. `docs/comparers/bench.md` explains the method.

`plan` says what to measure; `run` interleaves several worker processes; `worker` measures one backend, with the timers
of `timing`; `record` is the type of the result; `report` and `plot` explain it.
"""
