"""The methods by name, those of A2A and our own. They decide nothing about tasks: the core does."""
