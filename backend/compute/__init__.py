"""The heavy part of the work, in processes of its own that may be killed at any moment."""
