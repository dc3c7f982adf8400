"""Events of passes for phones' wallets (catalogue: Pass generation).

The document has the code twice, as CODE and as STATUSCODE, and a caller may give either. The default of ``status_code``
is the only value that the row allows.
"""

from typing import Literal

from postbacks.catalogue.base import Event
from postbacks.catalogue.values import FreeText, OpaqueId, Timestamp


class _Pass(Event):
    status_code: Literal["N801", "N802", "N803", "N811"]
    referenced_by: FreeText
    reference_value: FreeText
    custom_pass_id: OpaqueId | None = None
    pass_data_id: OpaqueId | None = None
    serial_number: OpaqueId | None = None
    timestamp: Timestamp


class PassGenerated(_Pass, origin="GENERATE_PASS", code="N801", meaning="the pass was generated"):
    """catalogue: GENERATE_PASS N801. Of the four rows this alone requires the pass's two numbers."""

    status_code: Literal["N801"] = "N801"
    pass_data_id: OpaqueId
    serial_number: OpaqueId


class PassGenerationFailed(_Pass, origin="GENERATE_PASS", code="N802", meaning="generation failed"):
    """catalogue: GENERATE_PASS N802. Its code begins with N, although it is an error."""

    status_code: Literal["N802"] = "N802"


class PassLimitReached(_Pass, origin="GENERATE_PASS", code="N803", meaning="the limit of passes is reached"):
    """catalogue: GENERATE_PASS N803."""

    status_code: Literal["N803"] = "N803"


class PassCreditTooLow(
    _Pass, origin="GENERATE_PASS", code="N811", meaning="the account has too little credit"
):
    """catalogue: GENERATE_PASS N811."""

    status_code: Literal["N811"] = "N811"
