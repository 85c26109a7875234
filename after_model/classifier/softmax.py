"""Multinomial logistic regression with soft targets, fast enough to refit after every few labels.

The objective is scikit-learn's (`LogisticRegression(C=...)`, which gives two classes one row of
weights where this has two): the summed cross-entropy plus half the squared weights over C, the
bias free. What is added: targets may be distributions; several fits
that differ in which rows they know (cross-validation's folds) are solved together, as the columns
of one matrix product; and L-BFGS runs on preconditioned rows, which takes 20 steps where
standardised embeddings take 80, since their variance lies in few directions.

Rows Z [n, D] with fewer rows than numbers are first turned into the triangular factor L [n, n] of
Z Z': an L2 penalty sees only inner products, so the solution is the same one. With
R'R = h Z'Z + I/C and w = R^-1 u, the logits are B u with B = Z R^-1, and the penalty |w|²/C
is |u|² - h |B u|².
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cholesky, solve_triangular
from scipy.optimize import minimize

CURVATURE = 0.1
"""h: the weight p (1 - p) of an average row in the Hessian; 0.05 to 0.2 take as many steps."""
RIDGE = 1e-9
"""What keeps the factor of linearly dependent rows defined, as a share of their mean square."""
MAX_ITERATIONS = 500
LEFT_OUT = -1e3
"""The bias of a class that a fit knows no label of: as good as minus infinity, and finite."""


@dataclass(frozen=True)
class Rows:
    """Rows [n, D] made ready: `basis` B [n, r] with r = min(n, D), and the way back to weights."""

    basis: np.ndarray  # B [n, r]
    triangle: np.ndarray  # R [r, r], upper
    points: np.ndarray  # Z [n, D]
    factor: np.ndarray | None  # L [n, n], lower; None where there are as many rows as numbers


@dataclass(frozen=True)
class Solution:
    """F fits of C classes to the same rows."""

    coefficients: np.ndarray  # u [r, F, C]
    bias: np.ndarray  # [F, C]

    def logits(self, rows: Rows) -> np.ndarray:
        """[F, n, C] of all rows, those included that a fit did not know."""
        r, fits, classes = self.coefficients.shape
        product = rows.basis @ self.coefficients.reshape(r, fits * classes)
        return product.reshape(-1, fits, classes).transpose(1, 0, 2) + self.bias[:, None]

    def weight(self, rows: Rows, fit: int = 0) -> np.ndarray:
        """[C, D] of one fit."""
        weight = solve_triangular(rows.triangle, self.coefficients[:, fit], check_finite=False)
        if rows.factor is not None:
            weight = rows.points.T @ solve_triangular(
                rows.factor, weight, lower=True, trans="T", check_finite=False
            )
        return weight.T


def prepare(points: np.ndarray, inverse_regularisation: float) -> Rows:
    """points float64 [n, D] and scikit-learn's C -> Rows. O(n min(n, D) D)."""
    n, dimensions = points.shape
    factor = None
    if n < dimensions:
        gram = points @ points.T
        gram[np.diag_indices(n)] += RIDGE * (np.trace(gram) / n + 1.0)
        factor = cholesky(gram, lower=True, overwrite_a=True, check_finite=False)
    rows = points if factor is None else factor
    hessian = CURVATURE * (rows.T @ rows)
    hessian[np.diag_indices(len(hessian))] += 1.0 / inverse_regularisation
    triangle = cholesky(hessian, overwrite_a=True, check_finite=False)
    basis = solve_triangular(triangle, rows.T, trans="T", check_finite=False).T
    return Rows(np.ascontiguousarray(basis), triangle, points, factor)


def solve(
    rows: Rows,
    targets: np.ndarray,
    known: np.ndarray,
    *,
    start: Solution | None = None,
    tolerance: float = 1e-3,
) -> Solution:
    """F fits to targets [n, C] (sums >= 0), each with row weights known [F, n].

    `start` is a Solution of one fit that all F begin from. tolerance bounds the largest gradient
    in preconditioned coordinates, where the curvature is about 1.
    """
    fits, (n, classes) = len(known), targets.shape
    r = rows.basis.shape[1]
    aims = targets[:, None] * known.T[:, :, None]  # [n, F, C]
    # a class without a label in a fit would send its bias to minus infinity: left out instead
    left_out = np.where(aims.sum(axis=0) > 0, 0.0, LEFT_OUT)
    totals = aims.sum(axis=2, keepdims=True)
    bias_scale = 1.0 / np.sqrt(CURVATURE * max(float(totals.sum()) / fits, 1.0))
    split = r * fits * classes

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        coefficients = flat[:split].reshape(r, fits * classes)
        product = rows.basis @ coefficients
        bias = flat[split:].reshape(fits, classes) * bias_scale + left_out
        logits = product.reshape(n, fits, classes) + bias
        highest = logits.max(axis=2, keepdims=True)
        exps = np.exp(logits - highest)
        sums = exps.sum(axis=2, keepdims=True)
        loss = float((totals * (highest + np.log(sums))).sum() - (aims * logits).sum())
        penalty = 0.5 * (coefficients.ravel() @ coefficients.ravel())
        penalty -= 0.5 * CURVATURE * (product.ravel() @ product.ravel())
        residual = exps * (totals / sums) - aims
        gradient = rows.basis.T @ (residual.reshape(n, -1) - CURVATURE * product) + coefficients
        bias_gradient = residual.sum(axis=0).ravel() * bias_scale
        return loss + float(penalty), np.concatenate([gradient.ravel(), bias_gradient])

    begin = np.zeros(split + fits * classes)
    if start is not None:
        begin[:split] = np.repeat(start.coefficients, fits, axis=1).ravel()
        bias = np.where(start.bias > LEFT_OUT / 2, start.bias, 0.0)
        begin[split:] = np.repeat(bias, fits, axis=0).ravel() / bias_scale
    options = {"gtol": tolerance, "ftol": 1e-14, "maxiter": MAX_ITERATIONS, "maxcor": 10}
    found = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options).x
    return Solution(
        found[:split].reshape(r, fits, classes),
        found[split:].reshape(fits, classes) * bias_scale + left_out,
    )
