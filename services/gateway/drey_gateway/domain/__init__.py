"""Pure parts: no clock, socket, loop, logger or randomness; time is an argument."""
