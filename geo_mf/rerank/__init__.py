"""Re-ranking: from many good candidates to one good list, off unless it is asked for."""
