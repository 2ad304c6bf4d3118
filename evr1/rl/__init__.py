"""The algorithms: pure functions of arrays, each a line in its module's table.

advantages.py (rewards of a group -> advantages), losses.py (per-token policy losses), kl.py
(estimators), weights.py (aggregation), diagnostics.py ((sum, count) metrics), ratio.py (safe log
ratios).
"""
