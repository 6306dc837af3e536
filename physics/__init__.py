"""What follows from an energy: derivatives, the calculator, and what they must obey."""
