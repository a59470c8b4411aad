"""`python -m gpuresample.cli`, where the script `gpuresample` is not on the path."""

import sys

from gpuresample.cli import main

sys.exit(main())
