"""Comparison of backends' results: a trace of each, a ladder of checks, and the layer at fault.

`trace` records one backend's results; `ladder` compares traces with the float64 reference; `diagnose` tests the
usual `causes` of a difference against the data; `run` does it all, in a process for each backend.
"""
