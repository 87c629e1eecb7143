"""``python -m benchmarks`` runs all rows; with names of PARTS, those."""

import os
import platform
import sqlite3
import sys

from benchmarks import capacity, chat, delay, delay_redis, instances, over_http, page, record
from benchmarks.report import Report

PARTS = {
    "record": record.run,
    "delay": delay.run,
    "http": over_http.run,
    "chat": chat.run,
    "page": page.run,
    "redis": delay_redis.run,
    "instances": instances.run,
    "capacity": capacity.run,
}


def main() -> int:
    unknown = [name for name in sys.argv[1:] if name not in PARTS]
    if unknown:
        print(f"there is no part {', '.join(unknown)}; parts: {', '.join(PARTS)}", file=sys.stderr)
        return 2
    report = Report()
    print(f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {os.cpu_count()} CPUs")
    for name in sys.argv[1:] or PARTS:
        PARTS[name](report)
    low = [row.name for row in report.rows if not row.met]
    print(f"\n{len(report.rows) - len(low)} of {len(report.rows)} figures meet their goal", *low, sep="\n  below: ")
    return 0


sys.exit(main())
