"""Runs: what is to be run, where it is run, and where what it found is kept."""
