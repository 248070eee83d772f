"""``python -m scoring.models REQUEST RESULT``: one search for variants, in a process of its own.

It reads the rows that the request names, writes variants below the folder that it names, and what
it found as one JSON document.
"""

from __future__ import annotations

import sys
from pathlib import Path

from scoring.garbage import search_seldom
from scoring.models.search import search
from scoring.models.search_request import Request


def main(request: str, result: str) -> None:
    search_seldom()
    found = search(Request.from_json(Path(request).read_text(encoding="utf-8")))
    Path(result).write_text(found.to_json(), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
