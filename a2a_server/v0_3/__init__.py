"""A2A 0.3, translated at the edge: nothing below it knows that there is an older version."""
