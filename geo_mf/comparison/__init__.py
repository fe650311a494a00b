"""Two vector sets of the same items, compared: how alike they are, where they disagree, and which one is right.

run.py           compare: any two aligned arrays
of_index.py      compare_index: the factors and the embeddings of an index
result.py        Comparison, and how it prints
figures.py       what a Comparison is made of
findings.py      its figures as sentences
spaces.py        what is compared: checked rows, brought to directions
similarity.py    debiased linear CKA
neighbours.py    nearest neighbours, their overlap, hubs
alignment.py     Procrustes and ridge regression on items held out
spectrum.py      how many directions a space uses
norms.py         how much of the length of a row is popularity
disagreement.py  items and pairs on which the spaces disagree most
pairs.py         pairs of items that somebody touched, drawn from held-out behaviour
who_is_right.py  which space finds such pairs, by number of interactions
crossover.py     from how many interactions on one space finds more than the other
"""
