"""`python -m instil`: the same as the `instil` command."""

import sys

from instil.cli import main

sys.exit(main())
