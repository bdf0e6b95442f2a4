"""`python -m modalbind` is the command line, for where its folder is not on the PATH."""

import sys

from modalbind.cli import main

sys.exit(main())
