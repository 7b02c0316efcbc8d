"""The course, run and held to its own rules. A package: its modules may then be called as others in tests/ are."""
