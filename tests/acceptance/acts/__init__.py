"""A runner for ACTS, the declarative conformance cases of the A2A project (its docs/acts-specification.md)."""
