"""Why a credential is not good: for the log alone. The caller of a server is told no more than that it is not."""


class BadCredential(Exception):
    """The credential proves nothing; the text says why, and holds nothing that the caller wrote."""
