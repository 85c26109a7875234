"""BatchBALD: the batch whose labels, jointly, say most about the model (Kirsch et al. 2019).

Eq. 8 of Li et al. 2024, greedily: the next utterance is the one that adds most to the mutual
information between the batch's labels and the model's weights w, of which K MC-dropout samples are
given. The information an utterance n adds to a batch is

    H(y_n | y_batch) - H(y_n | w)  =  sum_m v_m (H(r_m) - sum_k P_mk H(p(y_n | w_k))),

where m runs over the joint outcomes of the batch's labels, v_m is an outcome's probability,
P_mk = P(w_k | outcome m) and r_m(y) = sum_k P_mk p(y | w_k). While the batch has at most
`max_outcomes` outcomes all of them are summed (exact); beyond, `samples` of them are drawn from
the model (v_m = 1/M).

K samples of w can be told apart with log K nats of information. A batch that has them all gains
nothing from anything; what follows is then ordered by each utterance's own information (BALD).

What an utterance adds only falls as the batch grows (the information is submodular), so its last
known gain bounds the present one: gains are computed anew from the highest bound down, until no
bound reaches the best gain (lazy greedy, Minoux 1978). Sampled outcomes are given some slack.
"""

from __future__ import annotations

import numpy as np

from after_model.acquisition.base import (
    ByBatch,
    agreeing_samples,
    probabilities,
    top_k,
    wanted,
)

MAX_OUTCOMES = 10_000
SAMPLES = 1_000
LIMIT = 1_000
"""Candidates; few, since a batch that has all the information leaves no bound worth having."""
_CHUNK = 2**21  # numbers in the largest intermediate array, about 16 MiB
_AT_ONCE = 32  # utterances whose gains are computed together
_SINGLE = 1e-5  # nats; more than what single precision is wrong by
_SLACK = 1.25  # how far above its last estimate a sampled gain may come out
_TIE = 1e-10  # nats; below this, gains differ by rounding only


def batchbald(
    probs: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    max_outcomes: int = MAX_OUTCOMES,
    samples: int = SAMPLES,
    limit: int = LIMIT,
) -> np.ndarray:
    """Eq. 8: int64 [min(k, N)], distinct, greedy order, for MC samples probs [K, N, C].

    The K samples must share their dropout masks over all N utterances. Equal gains: utterance
    order. The candidates are the `limit` (2 k if more) with the most information of their own,
    the bound of what each can add. Raises ValueError naming the (sample, row) that is no
    distribution, and when there is a choice to make but all samples agree on every utterance.
    """
    return batchbald_scored(probs, k, rng, max_outcomes=max_outcomes, samples=samples, limit=limit)[
        0
    ]


def batchbald_scored(
    probs: np.ndarray,
    k: int,
    rng: np.random.Generator,
    *,
    max_outcomes: int = MAX_OUTCOMES,
    samples: int = SAMPLES,
    limit: int = LIMIT,
) -> tuple[np.ndarray, np.ndarray]:
    """`batchbald` with the mutual information of the batch after each pick, nats [min(k, N)]."""
    if np.ndim(probs) == 3 and len(probs) == 0:
        raise ValueError("batchbald needs at least one MC sample, got probs of shape [0, N, C]")
    everyone = _own_information(probs)
    k = wanted(k, len(everyone))
    if 0 < k < len(everyone) and everyone.max() <= _TIE:
        raise agreeing_samples("batchbald")
    # Rounded, so that copies tie and come in utterance order.
    rows = np.sort(top_k(np.round(everyone, 10), max(limit, 2 * k)))
    own = everyone[rows]
    values = probabilities(probs[:, rows], dimensions=3).transpose(1, 0, 2).copy()  # [n, K, C]
    draws, classes = values.shape[1:]
    per_model = -_p_log_p(values).sum(axis=2)  # H(y_n | w_k), [n, K]
    outcomes: _Exact | _Sampled = _Exact(draws)
    bounds = own.copy()
    chosen: list[int] = []
    information: list[float] = []
    while len(chosen) < k:
        best = _raise_best(outcomes, values, per_model, bounds) if chosen else bounds.max()
        if best <= _TIE:
            by_own = top_k(np.round(own, 10), len(own))  # copies tie
            rest = by_own[~np.isin(by_own, chosen)][: k - len(chosen)]
            information += [information[-1] if chosen else 0.0] * len(rest)
            chosen += rest.tolist()
            break
        pick = int(np.flatnonzero(bounds >= best - _TIE)[0])
        chosen.append(pick)
        bounds[pick] = -np.inf
        if isinstance(outcomes, _Exact) and len(outcomes.weight) * classes > max_outcomes:
            outcomes = _Sampled(draws, samples)
            for index in chosen:
                outcomes.add(values[index], rng)
        else:
            outcomes.add(values[pick], rng)
        # I(y_batch; w) = H(w) - H(w | y_batch): between 0 and log K also when it is sampled.
        left = -_p_log_p(outcomes.posterior).sum(axis=1)
        information.append(float(np.log(draws) - outcomes.weight @ left))
    return rows[chosen], np.array(information)


def _own_information(probs: np.ndarray) -> np.ndarray:
    """I(y_n; w) of each utterance alone (BALD), nats [N], for probs [K, N, C], in blocks of N."""
    shape = np.shape(probs)
    if len(shape) != 3:
        probabilities(probs, dimensions=3)  # says what is wrong with it
    step = max(1, _CHUNK // max(1, shape[0] * shape[2]))
    blocks = [np.zeros(0)]
    for start in range(0, shape[1], step):
        values = probabilities(probs[:, start : start + step], dimensions=3, first=start)
        values = values.transpose(1, 0, 2).copy()
        blocks.append(_gains(_Exact(shape[0]), values, -_p_log_p(values).sum(axis=2)))
    return np.concatenate(blocks)


def _raise_best(
    outcomes: _Exact | _Sampled, values: np.ndarray, per_model: np.ndarray, bounds: np.ndarray
) -> float:
    """The highest gain [nats]; `bounds` [n] get the gains of all that could have it.

    Bounds of what is chosen are -inf. Bounds above the gain returned are then gains.
    """
    slack = _SLACK if isinstance(outcomes, _Sampled) else 1.0
    order = np.argsort(-bounds, kind="stable")
    order = order[: np.count_nonzero(bounds > -np.inf)]
    best = -np.inf
    for start in range(0, len(order), _AT_ONCE):
        block = order[start : start + _AT_ONCE]
        if bounds[block[0]] * slack < best - _TIE:
            break
        short = values[block].astype(np.float32)
        bounds[block] = _gains(outcomes, short, per_model[block]) + _SINGLE
        best = max(best, float(bounds[block].max()) - 2 * _SINGLE)
    # Single precision finds the few that can be the best, double precision settles which.
    last = np.flatnonzero(bounds >= best)
    bounds[last] = _gains(outcomes, values[last], per_model[last])
    return float(bounds[last].max())


class _Exact:
    """All joint outcomes of the batch: probability [M] and P(w_k | outcome) [M, K]."""

    def __init__(self, draws: int) -> None:
        self.weight = np.ones(1)
        self.posterior = np.full((1, draws), 1 / draws)

    def add(self, probs: np.ndarray, rng: np.random.Generator) -> None:
        """One more utterance with probs [K, C]."""
        joint = self.weight[:, None, None] * self.posterior[:, None, :] * probs.T
        joint = joint.reshape(-1, joint.shape[2])
        weight = joint.sum(axis=1)
        possible = weight > 0
        self.weight = weight[possible]
        self.posterior = joint[possible] / self.weight[:, None]


class _Sampled:
    """Joint outcomes drawn from the model, equally many from each of the K samples of w."""

    def __init__(self, draws: int, samples: int) -> None:
        self.source = np.repeat(np.arange(draws), max(1, samples // draws))
        self.weight = np.full(len(self.source), 1 / len(self.source))
        self.log_joint = np.zeros((len(self.source), draws))

    @property
    def posterior(self) -> np.ndarray:
        scaled = np.exp(self.log_joint - self.log_joint.max(axis=1, keepdims=True))
        return scaled / scaled.sum(axis=1, keepdims=True)

    def add(self, probs: np.ndarray, rng: np.random.Generator) -> None:
        reach = np.cumsum(probs, axis=1)[self.source]
        drawn = (rng.random(len(reach))[:, None] * reach[:, -1:] >= reach).sum(axis=1)
        with np.errstate(divide="ignore"):
            # -inf rules a w out; the one that drew the label is never ruled out.
            self.log_joint += np.log(probs[:, drawn].T)


def _gains(outcomes: _Exact | _Sampled, values: np.ndarray, per_model: np.ndarray) -> np.ndarray:
    """Information that each utterance adds, [N], for values [N, K, C] and H(y_n | w_k) [N, K].

    Entropy given the model is averaged over the same outcomes as the other term: every outcome
    then adds a mutual information, never negative, which takes most of the sampling noise out.
    """
    posterior = outcomes.posterior
    _, draws, classes = values.shape
    short = posterior.astype(values.dtype)
    step = max(1, _CHUNK // (len(posterior) * classes))
    gains = -(per_model @ (outcomes.weight @ posterior))
    for start in range(0, len(values), step):
        block = values[start : start + step].transpose(1, 0, 2).reshape(draws, -1)
        spread = -_p_log_p(short @ block)  # [M, n * C]
        gains[start : start + step] += (outcomes.weight @ spread).reshape(-1, classes).sum(axis=1)
    return gains


def _p_log_p(values: np.ndarray) -> np.ndarray:
    """p log p with 0 log 0 = 0; several times faster than scipy.special.entr on large arrays."""
    return values * np.log(np.maximum(values, np.finfo(values.dtype).tiny))


STRATEGY = ByBatch(
    "batchbald",
    frozenset({"mc_probs"}),
    lambda pool, k, rng: batchbald(pool.need("mc_probs"), k, rng),
)
