"""Speed of backends, with its uncertainty. `benchmarks/README.md` states the method.

`measure` knows neither backend nor process; `worker` measures one backend in a process of its own; `run` interleaves
several workers; `record` is the type of the result; `figures`, `tables`, `conclusions` and `report` explain it.
"""
