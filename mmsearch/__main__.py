"""`python -m mmsearch COMMAND`."""

import sys

from mmsearch.cli import main

if __name__ == "__main__":
    sys.exit(main())
