"""Documents packed: the same bytes come back, for as long as anybody has a pack."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from records import make_document
from strategies import PROPERTY

from postbacks.history import documents
from postbacks.history.documents import MESSAGE, XML, Document

some_documents = st.lists(
    st.builds(Document, st.sampled_from([XML, MESSAGE]), st.binary(max_size=300)), min_size=1, max_size=16
)


@given(some_documents)
@PROPERTY
def test_each_document_comes_back(some):
    """Of any bytes and both kinds; an empty one stands for none."""
    assert documents.unpack(documents.PACKING, len(some), documents.pack(some)) == some


def test_large_documents_come_back():
    """Larger than the window; their lengths take several bytes."""
    some = [Document(XML, make_document(f"track-{number}") * 400) for number in range(3)]
    assert documents.unpack(documents.PACKING, 3, documents.pack(some)) == some


def test_a_receipt_takes_a_few_bytes():
    """Beside 15 others, and alone."""
    some = [Document(XML, make_document(f"{number * 7919:032x}", f"1555{number:07}")) for number in range(16)]
    assert len(documents.pack(some)) / 16 <= 35
    assert len(documents.pack(some[:1])) <= 75


def test_packing_1_is_frozen():
    """Change neither dictionary nor layout, as its packs are read for ever: add a packing."""
    digest = hashlib.sha256(documents._DICTIONARY).hexdigest()
    assert digest == "4c3289bfa63d8c0259218ac8662070eafded332d7c02be86890ce67ef980f360"
    packed = bytes.fromhex(
        "5bc2c23a3842d6c8c2c4c404a909020a452363603d6e6c8e1198254589c9d9ba865843d3d8086b789ae91a98ea1a598418195819e3085044a030540300"
    )
    some = [Document(XML, make_document("track-1")), Document(MESSAGE, b"\x00{")]
    assert documents.unpack(1, 2, packed) == some


def test_what_cannot_be_unpacked_is_told():
    """A newer version's, a damaged one, one cut off."""
    packed = documents.pack([Document(XML, make_document())])
    with pytest.raises(ValueError, match="of packing 2, and this version reads 1"):
        documents.unpack(2, 1, packed)
    with pytest.raises(ValueError, match="damaged"):
        documents.unpack(1, 1, b"\xff" + packed)
    with pytest.raises(ValueError, match="cut off"):
        documents.unpack(1, 1, packed[:-8])
