"""Business values: the one spelling in which a number is compared."""

from __future__ import annotations

import pytest

from postbacks.privacy.spelling import canonical


@pytest.mark.parametrize(
    ("spellings", "number"),
    [
        (("15552310137", "+1 (555) 231-0137", "0015552310137", "5552310137", "555.231.0137", "011 1 555 231 0137"), "5552310137"),
        (("442079460018", "+44 20 7946 0018", "+44 (0)20 7946 0018", "0044 (0)20-7946-0018", "011442079460018"), "442079460018"),
        (("49301234", "+49 30 1234", "0049 30 1234", "+49 (0)30/1234"), "49301234"),
        (("86717", "86 717"), "86717"),
        (("0111234567", "(0)111 234567"), "0111234567"),
    ],
)  # fmt: skip
def test_a_number_in_any_spelling_is_one(spellings, number):
    """The first one is as a document has it: 3 to 15 digits, without + and without a leading 00."""
    assert {canonical("number", spelling) for spelling in spellings} == {number}
