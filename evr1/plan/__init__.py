"""Plans of runs on machines that are not there: memory, collectives, operations, seconds."""
