"""The PyTorch peers, for side-by-side runs in an environment of their own."""
