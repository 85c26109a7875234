"""What only makes a backbone faster on a CPU; results are the same to rounding."""
