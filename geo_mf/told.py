"""What is known of users beside what they touched, and which factor it lets one expect."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geo_mf.data.ids import IdMap
from geo_mf.data.people import People
from geo_mf.geometry.prior import apply as apply_prior

__all__ = ["Told"]


@dataclass(frozen=True, eq=False)
class Told:
    """The people of an index, and the prior of users' factors.

    Attributes:
        people: users and their attributes, also users who touched nothing.
        coefficients: float32 [dim + 1, K], from features (and a constant) to factors: the ridge regression of the
            factors that behaviour gave.
        of_users: float32 [users, K], the prior of each known user; a zero row for a user of whom nothing is known.
    """

    people: People
    coefficients: np.ndarray
    of_users: np.ndarray

    @classmethod
    def of(cls, people: People, coefficients: np.ndarray, users: IdMap) -> "Told":
        """For the known users `users`."""
        return cls(people, coefficients, apply_prior(coefficients, people.features_of(users)))

    def with_users(self, users: IdMap) -> "Told":
        """For more users, the new ones behind those of before."""
        new = IdMap(users.ids.slice(len(self.of_users)))
        more = apply_prior(self.coefficients, self.people.features_of(new))
        return replace(self, of_users=np.concatenate([self.of_users, more]))

    def of_features(self, features: np.ndarray) -> np.ndarray:
        """float32 [K], from the features float32 [dim] of anybody; zero if nothing is known."""
        return apply_prior(self.coefficients, features[None])[0]

    def of_person(self, id: Any) -> np.ndarray:
        """float32 [K], of one of the people, known or not. Raises UnknownId."""
        return self.of_features(self.people.features(id))
