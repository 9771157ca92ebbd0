"""Tools of the measuring verbs: conditions of a machine, worker processes, records, statistics, units."""
