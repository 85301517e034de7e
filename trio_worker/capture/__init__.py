"""The mail catcher, a relay for development and tests: strict, keeps all mails, and injects faults on demand."""
