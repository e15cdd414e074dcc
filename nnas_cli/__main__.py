"""``python -m nnas_cli`` is ``nnas``."""

import sys

from nnas_cli.main import entry

sys.exit(entry())
