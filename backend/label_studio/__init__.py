"""Everything that is asked of Label Studio or told to it, and what its configs and answers mean."""
