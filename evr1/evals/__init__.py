"""Benchmarks: tasks, scoring by the rules of several kits, and the job that answers them."""
