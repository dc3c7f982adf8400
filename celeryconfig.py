"""The deployment's Celery configuration: read by `celery -A postbacks …` from the working directory.

The app's built-in configuration (postbacks/app.py) is complete; what stands here overrides it. The
broker's URL and every setting of delivery come from the environment (POSTBACKS_…, docs/settings.md).
Only settings with a reason are here.
"""

# Threads: one delivers through libcurl, the others tick, so a tick never waits for a delivery. More
# rate comes from more workers, not from more threads. `prefork` works too; `solo` is refused.
worker_pool = "threads"

# One thread claims and delivers, one may still finish the slice before, two tick.
worker_concurrency = 4

# Ticks and wake-ups are tiny and of equal worth; a worker should not hoard them.
worker_prefetch_multiplier = 1

# Mingle and gossip serve clocks and revoked ids shared between workers, which postbacks keeps in
# Redis; after a reconnection they have kept workers from consuming (celery#8030).
# They are switched off on the command line: --without-mingle --without-gossip.

# Flower and `celery events` want events of tasks; `celery -A postbacks control enable_events` turns
# them on when somebody looks.
worker_send_task_events = False
