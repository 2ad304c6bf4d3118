"""The algorithms: pure functions of arrays, each a line in its module's table.

advantages.py (rewards of a group -> advantages), temporal.py (a bonus for frames in their order),
losses.py (per-token policy losses), offline.py (those of completions from elsewhere), kl.py
(estimators), correction.py (sampler against trainer), selection.py (tokens of a whole minibatch),
entropy.py (a coefficient that adapts), weights.py (aggregation), diagnostics.py ((sum, count)
metrics), ratio.py (safe log ratios).
"""
