"""The relay of a developer's machine and of all tests: strict, keeps what it gets, and misbehaves on demand."""
