"""`python -m chat2api`: the command line."""

import sys

from chat2api.cli import main

if __name__ == "__main__":
    sys.exit(main())
