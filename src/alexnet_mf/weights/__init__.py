"""Weights in canonical layout, and the file formats that need no framework."""
