"""One corpus a file. A loader reads the folder as the corpus's owner releases it, checks the counts
that the release is known to have, and never guesses a label. A file whose name begins with an
underscore is no corpus: loaders share it.
"""
