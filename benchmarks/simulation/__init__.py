"""A discrete-event simulation of one broker, its workers, and the accounts that they send to.

``rules.py`` is what the Lua scripts decide, with counts instead of ids; ``system.py`` the processes over it (beat and
tick, delivering loops, callers), which wait in simpy; ``world.py`` the accounts, the day and what goes wrong;
``costs.py`` what each step costs, as measured; ``scenarios.py`` what is simulated; ``check.py`` the same beside a real
run; ``pages.py`` writes it all down.
"""
