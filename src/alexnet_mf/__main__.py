"""`python -m alexnet_mf`."""

import sys

if __name__ == "__main__":
    try:
        from alexnet_mf.cli import main
    except KeyboardInterrupt:  # later on `main` sees to it
        print("\nalexnet-mf: stopped by Ctrl-C", file=sys.stderr)
        sys.exit(130)
    sys.exit(main())
