"""Advantages, policy losses, KL terms and corrections in float64, from their definitions.

Nothing here comes from evr1.rl. Where a formula holds a value still (stop-gradient), it is worked
out from `frozen`, so that finite differences in `new` see only what has a gradient.
"""

import math

import numpy as np


def clip(x, low, high):
    return min(max(x, low), high)


def ppo_term(ratio, a, c):
    low = 1 - c.clip_low if c.clip_low else -math.inf
    high = 1 + c.clip_high if c.clip_high else math.inf
    loss = -min(ratio * a, clip(ratio, low, high) * a)
    return min(loss, -c.clip_dual * a) if c.clip_dual and a < 0 else loss


def offline_losses(new, behavior, a, c):
    """The loss of every token of a completion from elsewhere; lists of T numbers."""
    losses = []
    for logprob, other, advantage in zip(new, behavior, a, strict=True):
        p = math.exp(logprob)
        if c.offline == "importance":
            losses.append(-min(p / math.exp(other), c.offline_clip) * advantage)
        elif c.offline == "luffy":
            losses.append(-advantage * p / (p + c.luffy_gamma))
        else:
            assert c.offline == "sft"
            losses.append(-advantage * logprob)
    return losses


def completion_losses(new, frozen, old, a, c):
    """The loss of every token of one completion, all of them trained; lists of T numbers."""
    tokens = range(len(new))
    d = [new[t] - old[t] for t in tokens]
    held = [frozen[t] - old[t] for t in tokens]
    if c.policy == "ppo":
        return [ppo_term(math.exp(d[t]), a[t], c) for t in tokens]
    if c.policy == "gspo":
        s = math.exp(sum(d) / len(d))
        return [ppo_term(s, a[t], c) for t in tokens]
    if c.policy == "gspo_token":
        s = math.exp(sum(held) / len(held))
        return [ppo_term(s * math.exp(new[t] - frozen[t]), a[t], c) for t in tokens]
    if c.policy == "cispo":
        low = 1 - c.clip_low if c.clip_low else -math.inf
        high = 1 + c.clip_high if c.clip_high else math.inf
        return [-clip(math.exp(held[t]), low, high) * a[t] * new[t] for t in tokens]
    if c.policy == "sapo":
        losses = []
        for t in tokens:
            tau = c.sapo_temperature_positive if a[t] > 0 else c.sapo_temperature_negative
            gate = 1 / (1 + math.exp(-tau * (math.exp(d[t]) - 1)))
            losses.append(-4 / tau * gate * a[t])
        return losses
    if c.policy == "reinforce":
        return [-a[t] * new[t] for t in tokens]
    assert c.policy == "gmpo"
    clipped = [
        min(d[t], c.clip_high or math.inf) if a[t] > 0 else max(d[t], -(c.clip_low or math.inf))
        for t in tokens
    ]
    mean = sum(clipped) / len(clipped)
    return [-a[t] * math.exp(mean) for t in tokens]


def kl_term(estimator, d):
    return {"k1": d, "abs": abs(d), "k2": d * d / 2, "k3": math.exp(-d) + d - 1}[estimator]


def correction(name, log_rho, low, high):
    """The weight of every token of a completion; lists of T numbers."""
    rho = [math.exp(x) for x in log_rho]
    product = math.prod(rho)
    if name == "token_tis":
        return [min(x, high) for x in rho]
    if name == "sequence_tis":
        return [min(product, high) for _ in rho]
    if name == "token_mis":
        return [x if low <= x <= high else 0.0 for x in rho]
    if name == "sequence_mis":
        return [product if low <= product <= high else 0.0 for _ in rho]
    if name == "geometric":
        mean = product ** (1 / len(rho))
        return [1.0 if low <= mean <= high else 0.0 for _ in rho]
    assert name == "veto"
    return [0.0 if min(rho) < low else 1.0 for _ in rho]


def total_loss(new, frozen, x, weights, c):
    """sum(weights * loss) of a batch. `x` has the fields of TokenInputs as float64 arrays."""
    total = 0.0
    for g, n in np.ndindex(x.mask.shape[:2]):
        on = np.flatnonzero(x.mask[g, n])
        if not len(on):
            continue

        def of(array, g=g, n=n, on=on):
            return [float(v) for v in array[g, n, on]]

        offline = bool(x.is_offline[g, n, 0])
        then = of(frozen) if c.on_policy else of(x.old_logprobs)
        if offline and c.offline != "on_policy":
            losses = offline_losses(of(new), of(x.behavior_logprobs), of(x.advantages), c)
        else:
            losses = completion_losses(of(new), of(frozen), then, of(x.advantages), c)
        factors = [1.0] * len(on)
        if c.correction and not offline:
            log_rho = np.array(then) - np.array(of(x.behavior_logprobs))
            factors = correction(c.correction, log_rho, c.correction_low, c.correction_high)
        for t, loss, factor in zip(on, losses, factors, strict=True):
            term = factor * loss
            if c.has_kl:
                d = new[g, n, t] - x.ref_logprobs[g, n, t]
                term += float(x.kl_coef[g, 0, 0]) * kl_term(c.kl_estimator, d)
            term -= c.entropy_coef * float(x.entropy[g, n, t])
            total += float(weights[g, n, t]) * term
    return total


def gradient(new, x, weights, c, h=1e-5):
    """Central differences of `total_loss`, by completions' tokens."""
    result = np.zeros(new.shape)
    for i in np.ndindex(new.shape):
        if not x.mask[i]:
            continue
        step = np.zeros(new.shape)
        step[i] = h
        up, down = (total_loss(new + s, new, x, weights, c) for s in (step, -step))
        result[i] = (up - down) / (2 * h)
    return result


def advantages(mode, rewards, lengths, parts, tasks):
    """One list a group; every argument is a list of lists, `parts` pairs of weight and scores."""
    mean = [sum(r) / len(r) for r in rewards]
    everyone = [x for r in rewards for x in r]

    def std(values, ddof):
        m = sum(values) / len(values)
        return math.sqrt(sum((v - m) ** 2 for v in values) / (len(values) - ddof))

    def each(f):
        return [[f(g, x, i) for i, x in enumerate(r)] for g, r in enumerate(rewards)]

    if mode == "grpo":
        return each(lambda g, x, i: (x - mean[g]) / (std(rewards[g], 1) + 1e-6))
    if mode == "dr_grpo":
        return each(lambda g, x, i: x - mean[g])
    if mode == "grpo_passk":
        top = [sorted(r)[::-1][:2] for r in rewards]
        return each(
            lambda g, x, i: (
                (top[g][0] - top[g][1]) / (std(rewards[g], 1) + 1e-6) if x == top[g][0] else 0.0
            )
        )
    if mode == "rloo":
        return each(
            lambda g, x, i: (
                x - sum(v for j, v in enumerate(rewards[g]) if j != i) / (len(rewards[g]) - 1)
            )
        )
    if mode == "reinforce_plus_plus":
        tokens = [
            x
            for r, n in zip(rewards, lengths, strict=True)
            for x, k in zip(r, n, strict=True)
            for _ in range(k)
        ]
        m, s = sum(tokens) / len(tokens), math.sqrt(std(tokens, 1) ** 2 + 1e-8)
        return each(lambda g, x, i: (x - m) / s)
    if mode == "remax":  # the tests let the first completion stand for the greedy one
        return each(lambda g, x, i: x - rewards[g][0])
    if mode == "maxrl":
        return each(lambda g, x, i: (x - mean[g]) / mean[g] if mean[g] > 0 else 0.0)
    if mode == "opo":
        base = [
            sum(x * k for x, k in zip(r, n, strict=True)) / sum(n)
            for r, n in zip(rewards, lengths, strict=True)
        ]
        return each(lambda g, x, i: x - base[g])
    if mode == "lite_ppo":
        return each(lambda g, x, i: (x - mean[g]) / (std(everyone, 1) + 1e-6))
    if mode == "reinforce_plus_plus_baseline":
        above = each(lambda g, x, i: x - mean[g])
        s = std([x for r in above for x in r], 1) + 1e-6
        return [[x / s for x in r] for r in above]
    if mode == "gdpo":
        total = each(lambda g, x, i: 0.0)
        for weight, scores in parts:
            for g, r in enumerate(scores):
                s = std(r, 1) + 1e-6
                for i, x in enumerate(r):
                    total[g][i] += weight * (x - sum(r) / len(r)) / s
        s = std([x for r in total for x in r], 1) + 1e-6
        return [[x / s for x in r] for r in total]
    assert mode == "ema_grpo"
    sigma = {}
    for task in set(tasks):
        mine = [x for r, t in zip(rewards, tasks, strict=True) if t == task for x in r]
        sigma[task] = max(std(mine, 0), 1e-3)
    result = []
    for g, r in enumerate(rewards):
        row = [(x - mean[g]) / sigma[tasks[g]] for x in r]
        if max(map(abs, row)) > 5:
            row = [(x - mean[g]) / max(std(r, 0), 1e-3) for x in r]
        result.append(row)
    return result
