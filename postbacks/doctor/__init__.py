"""``postbacks doctor``: looks at a live system, says what is wrong with it, and repairs what needs no guess.

The checks are a table (``table.py``). What they look at comes from two kinds of look: the *scene* (``scene.py``:
a few cheap questions to the broker) and the *survey* (``survey.py``: every postback, every lane). Both are
looked at twice (``doctor.py``), and only what stands both times is said.
"""

from postbacks.doctor.doctor import Doctor as Doctor
from postbacks.doctor.doctor import Repair as Repair
from postbacks.doctor.doctor import Report as Report
from postbacks.doctor.doctor import Result as Result
from postbacks.doctor.table import CHECKS as CHECKS
from postbacks.doctor.table import Check as Check
