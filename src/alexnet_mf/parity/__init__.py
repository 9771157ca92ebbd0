"""Comparison of what backends compute: a trace of each, a ladder of checks, and the layer at fault.

`trace` records what one backend computed; `ladder` compares traces with the float64 reference; `diagnose` tests the
usual `causes` of a difference against the data; `run` does it all, with a process for each backend.
"""
