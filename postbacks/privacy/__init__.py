"""Privacy: what is personal in an event, masked wherever people look.

::

    from postbacks.privacy import masker

    mask = masker()
    mask.number("15552310137")         # 1555…37 ·k3f9
    mask.email("ann@example.com")      # a…@example.com ·8wq2
    mask.text("Hello, it is Ann")      # 16 characters
    mask.document(record.xml)          # the document, masked tag by tag
"""

from postbacks.privacy.key import mask_why, masker
from postbacks.privacy.masker import Masker

__all__ = ["Masker", "mask_why", "masker"]
