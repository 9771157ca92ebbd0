"""What the measuring verbs share: conditions of a machine, worker processes, statistics, units."""
