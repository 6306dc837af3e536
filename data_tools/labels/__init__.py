"""What is learned: targets, standardisation, splits, and checks of labels."""
