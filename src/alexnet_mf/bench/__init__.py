"""How fast a backend is, and how sure one may be of it. `benchmarks/README.md` states the method.

`statistics` and `measure` know neither backend nor process; `worker` measures one backend in a process of its own;
`run` keeps several workers and interleaves them; `record` is the file that remains; `report` reads such files.
"""
