"""An index that lives: each function takes a snapshot and gives the next one, and changes nothing."""
