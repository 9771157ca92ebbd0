"""`python -m alexnet_mf`."""

import sys

from alexnet_mf.cli import main

if __name__ == "__main__":
    sys.exit(main())
