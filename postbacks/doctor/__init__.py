"""``postbacks doctor``: examines a live system, says what is wrong with it, and repairs what needs no guess.

The checks are a table (``table.py``). They judge an *inspection* (``inspection.py``): the snapshot that metrics and
health judge as well (``monitor/snapshot.py``), what doctor asks beside it (``details.py``), and the *audit* of every
postback and every lane (``audit.py``). There are two inspections (``doctor.py``), and only what stands both times is
reported.
"""

from postbacks.doctor.doctor import Doctor as Doctor
from postbacks.doctor.doctor import Repair as Repair
from postbacks.doctor.doctor import Report as Report
from postbacks.doctor.doctor import Result as Result
from postbacks.doctor.table import CHECKS as CHECKS
from postbacks.doctor.table import Check as Check
