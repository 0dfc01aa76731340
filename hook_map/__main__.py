"""``python -m hook_map FOLDER`` writes the page and its drawings."""

import sys
from pathlib import Path

from hook_map.page import write_pages

print(write_pages(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/generated")))
