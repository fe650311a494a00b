"""Users whose taste is that of their group: what attributes should tell, planted."""

import numpy as np

USERS, ITEMS, GROUPS = 160, 60, 4
NEW = 120
"""From here on, users have touched nothing in training."""


def group(user: int) -> int:
    return user % GROUPS


def liked() -> list[np.ndarray]:
    """What each user likes, the items in random order: users like items of their group, popular ones before others."""
    random = np.random.default_rng(0)
    popularity = random.lognormal(0, 1, ITEMS)
    found = []
    for user in range(USERS):
        taste = popularity * np.where(np.arange(ITEMS) % GROUPS == group(user), 1, 0.1)
        found.append(random.choice(ITEMS, 9, replace=False, p=taste / taste.sum()))
    return found
