"""`python -m a2a_server` is `a2a-server`."""

from a2a_server.cli import main

if __name__ == "__main__":
    main()
