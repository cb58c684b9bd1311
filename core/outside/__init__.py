"""What comes from outside: the time, names, other hosts' answers. Knows the limits of these, and nothing of trees."""
