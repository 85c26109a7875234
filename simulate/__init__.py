"""The paper's benchmarks: corpora with hidden labels, protocols, experiments and their report."""
