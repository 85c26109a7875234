"""Label efficiency: how many labels each way of asking needs, measured with the probe alone.

`python -m simulate.efficiency --emodb DIR --ravdess DIR` repeats a speaker-independent division of
each corpus, runs every strategy and start on it, and writes curves and a report. The encoder stays
frozen, so embeddings are computed once and a run takes seconds: enough runs to tell small
differences from luck, which one fold and one seed are not.
"""
