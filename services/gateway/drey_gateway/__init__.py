"""The gateway: the public face of Drey."""
