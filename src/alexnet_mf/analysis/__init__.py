"""Costs of a network: by arithmetic, against a device's roofline, and as measured."""
