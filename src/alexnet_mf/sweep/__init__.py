"""Trainings side by side: accuracy, throughput and memory by network, batch size, augmentation and seed.

Each training runs in a process of its own, so that its peak memory is its own, and a batch that does not fit ends
nothing but itself.
"""
