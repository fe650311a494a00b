"""What is known of users beside what they touched, and which factor it lets one expect."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from geo_mf.data.ids import IdMap
from geo_mf.data.people import People
from geo_mf.errors import InvalidInput
from geo_mf.geometry.prior import apply as apply_prior

__all__ = ["Told", "expected_of", "known_row"]


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


def known_row(user: Any, users: IdMap, told: Told | None) -> int | None:
    """The row of a known user; None for nobody, and for one of whom only attributes are known. Raises UnknownId."""
    if user is None or (told is not None and user not in users and user in told.people.ids):
        return None
    return users.row(user, "user")


def expected_of(told: Told | None, user: Any, at: int | None, given: Mapping[str, Any] | None) -> np.ndarray | None:
    """float32 [K]: what is to be expected of somebody, by what a request gives before what the index knows.

    Args:
        told: what the index knows of users.
        user, at: whom a request names, and the row of that user if known.
        given: attributes that it gives.

    Returns:
        None if that says nothing.

    Raises:
        InvalidInput: attributes are given that the index does not know, or cannot use.
    """
    if told is None:
        if given is not None:
            raise InvalidInput("this index knows nothing of users beside what they touched: build(..., users=...)")
        return None
    if given is not None:
        found = told.of_features(told.people.attributes.encode_one(given, "user"))
    elif at is not None:
        found = told.of_users[at]
    elif user is not None:
        found = told.of_person(user)
    else:
        return None
    return found if found.any() else None
