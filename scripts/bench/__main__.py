"""python -m bench [names]: measures, writes docs/bench/<name>.csv, then docs/bench.md. All of them, in about two hours."""

import importlib
import sys
import time

from bench.page import write_page
from bench.rows import Row, here, write_rows

BENCHES = ("first_run", "library", "learning", "growth", "scaling")  # modules of this package


def main(names: list[str]) -> int:
    """0, or 2 for a name that is none; "page" only writes the page again."""
    unknown = [name for name in names if name not in (*BENCHES, "page")]
    if unknown:
        print(f"There is no bench {unknown[0]!r}: choose of {', '.join(BENCHES)}, page.", file=sys.stderr)
        return 2
    for name in names or BENCHES:
        if name == "page":
            continue
        began = time.perf_counter()
        rows: list[Row] = []
        for row in importlib.import_module(f"bench.{name}").measure():
            rows.append(here(row))
            write_rows(name, rows)  # what there is, if it is interrupted
            print(f"{row.case}: {row.quantity} {row.value:.4g} {row.unit}", flush=True)
        rows.append(here(Row("this bench", "wall time of all", time.perf_counter() - began, "s")))
        print(write_rows(name, rows))
    write_page()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
