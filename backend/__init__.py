"""AFTER as a Label Studio ML backend: people label, the model learns and says what comes next."""
