"""The whole story on recordings whose labels are known, with an oracle instead of people.

    python -m benchmarks.story --audio EmoDB/wav --budget 20

Starts what `make run AUDIO=folder` starts. The oracle labels over Label Studio's API what Label
Studio serves, one recording after the other and never another, at a person's pace and without
waiting for the model. Then: how right is the serving model on what nobody labelled, how right is
the same learner after as many labels of recordings chosen at random, and how soon did a label
change the order?
"""
