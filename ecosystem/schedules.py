"""Step sizes a(k) of the stochastic-approximation update Θ ← Θ + a(k) (freq − Θ).

=================  ==============================  =====================================================
written            a(k), k = 1, 2, ...             what it means
=================  ==============================  =====================================================
``accumulate``     m / ℓ(k), ℓ(k) = ℓ(k−1) + m     the empirical distribution of all data so far; ℓ(0) is
                                                   the pretraining size (arXiv:2404.02325, eq. 3)
``replace``        1                               trained from scratch on the newest batch only
``forget:A``       A                               exponential window of about 1/A rounds
``power:RHO``      C (k + K0)^(−RHO)               Robbins-Monro; ``power:RHO:C:K0``, by default C = 1
                                                   and K0 = 0, so that the first step replaces Θ(0)
=================  ==============================  =====================================================
"""

from dataclasses import dataclass

from ecosystem.errors import InputError

ALLOWED = '"accumulate", "replace", "forget:A" with 0 < A ≤ 1, or "power:RHO[:C[:K0]]" with 1/2 < RHO ≤ 1'


@dataclass(frozen=True)
class Schedule:
    """A parsed schedule.

    Attributes
    ----------
    kind : str
        "accumulate", "replace", "forget" or "power".
    parameters : tuple of float
        () for the first two, (A,) for "forget", (RHO, C, K0) for "power".
    """

    kind: str
    parameters: tuple[float, ...] = ()

    @classmethod
    def parse(cls, text: str) -> "Schedule":
        """Read a schedule as users write it; raise `InputError` for anything else."""
        kind, *numbers = text.split(":")
        try:
            parameters = tuple(float(number) for number in numbers)
        except ValueError:
            parameters = (float("nan"),)
        match kind, parameters:
            case (("accumulate" | "replace"), ()):
                return cls(kind)
            case "forget", (a,) if 0 < a <= 1:
                return cls(kind, parameters)
            case "power", (rho, *rest) if 0.5 < rho <= 1 and len(rest) <= 2:
                c, k0 = [*rest, *(1.0, 0.0)[len(rest) :]]
                if k0 >= 0 and 0 < c <= (1 + k0) ** rho:
                    return cls(kind, (rho, c, k0))
                raise InputError(
                    f"the step C (k + K0)^(-RHO) of {text!r} must lie in (0, 1] from k = 1 on: "
                    "K0 ≥ 0 and 0 < C ≤ (1 + K0)^RHO, e.g. power:0.7:1:9"
                )
        raise InputError(f"{text!r} is not a schedule; allowed: {ALLOWED}")

    def step_size(self, round: int, batch_size: float, trained_items: float) -> float:
        """Return a(k) in (0, 1].

        Parameters
        ----------
        round : int
            k ≥ 1.
        batch_size : float
            m, items in this round's batch (the sum of their weights, where they are weighted).
        trained_items : float
            ℓ(k−1), items the model was trained on before this round, pretraining included.
        """
        match self.kind:
            case "accumulate":
                return batch_size / (trained_items + batch_size)
            case "replace":
                return 1.0
            case "forget":
                return self.parameters[0]
            case _:
                rho, c, k0 = self.parameters
                return c * (round + k0) ** -rho
