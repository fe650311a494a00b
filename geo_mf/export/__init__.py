"""What leaves an index: lists for everybody, and vectors in the formats that others read."""
