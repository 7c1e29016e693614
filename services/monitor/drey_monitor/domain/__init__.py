"""What a monitor knows and decides: no clock, socket, loop or logger."""
