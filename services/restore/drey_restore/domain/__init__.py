"""What a restore is: pure, without clock, socket or loop."""
