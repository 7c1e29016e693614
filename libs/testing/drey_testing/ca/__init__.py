"""Channel Access for tests: IOC processes on loopback and the conformance suite."""
