"""What the training structures of a model covered, and which other structures lie outside."""
