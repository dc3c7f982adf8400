"""Accounts as a file of YAML: written from the store, read with every fault and its line, compared, and applied.

::

    from pathlib import Path

    from postbacks.operate import account_file

    plan = account_file.plan(Path("accounts.yaml").read_bytes(), Path())
    for account in plan.accounts:
        print(account.name, account.changed)
    if not plan.faults:
        for name in account_file.apply(plan, why="ticket 812"):
            print(name, "is set")
"""

from postbacks.operate.account_file.planning import Plan, PlannedAccount, apply, plan
from postbacks.operate.account_file.reading import Fault
from postbacks.operate.account_file.writing import export

__all__ = ["Fault", "Plan", "PlannedAccount", "apply", "export", "plan"]
