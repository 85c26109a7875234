"""python -m backend.compute WORK PROJECT VERSION: see work.py."""

import os
import sys

from backend.compute.work import main

NICE = 10  # what people wait for comes first: a Label Studio on the same machine, and steps

os.nice(NICE)
sys.exit(main(sys.argv[1:]))
