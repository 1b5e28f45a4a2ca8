"""`python -m gumbeltopk`."""

import sys

from gumbeltopk.cli import main

if __name__ == "__main__":
    sys.exit(main())
