"""Clients of other projects against this server: what each shows to its user. `scripts/clients` plays them."""
