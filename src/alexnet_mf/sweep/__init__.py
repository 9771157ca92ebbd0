"""Compare trainings: accuracy, throughput and memory by network, batch size, augmentation and seed.

Each training runs in its own process, so that its peak memory can be measured, and a batch that does not fit ends
only that training.
"""
