"""`python -m clip_common`."""

import sys

from .cli import main

sys.exit(main())
