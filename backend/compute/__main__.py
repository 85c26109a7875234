"""python -m backend.compute WORK PROJECT VERSION: see work.py."""

import sys

from backend.compute.work import main

sys.exit(main(sys.argv[1:]))
