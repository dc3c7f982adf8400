"""Flower's configuration: read by `celery -A postbacks flower` from the working directory.

What stands on its command line or in FLOWER_… variables goes before. Only settings with a reason are here.
"""

# Every task is postbacks.send_postback, so that its name says nothing; account and code are its args.
tasks_columns = "uuid,args,state,retries,exception,received,runtime,worker"

# 100,000 postbacks are kept, about 400 MB of memory; what is older is in the ledger (postbacks show).
max_tasks = 100_000
