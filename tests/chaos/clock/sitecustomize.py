"""Sets a process's clock off by CHAOS_CLOCK_SECONDS; found first on the path of that process.

The calendar clock alone: intervals are measured by the monotonic one, which nobody can set.
"""

import datetime
import os

OFF = float(os.environ.get("CHAOS_CLOCK_SECONDS", "0"))

if OFF:
    import time_machine  # below Python: modules written in C must see the same type and clock

    there = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=OFF)
    time_machine.travel(there, tick=True).start()
