"""What several benchmarks of one kit share, a module a kit."""
