"""The executors that come with the library, each a user of `core.executors` as any other."""
