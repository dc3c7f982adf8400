"""Documents packed for the history, those of up to 16 neighbouring rows together.

A pack is raw deflate that begins with the catalogue's tags: a delivery receipt of 410 bytes takes 50 and 5 us, alone 101.
``packing`` of its row names dictionary and layout. Neither is ever changed, as what was packed could not be read any more: a
new one gets the next number.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import Connection

#: Number of the packing that new documents get.
PACKING: Final = 1
#: Rows that a pack is of at most, and bytes of documents from which on no further row joins one.
ROWS_MAX: Final = 16
FULL_BYTES: Final = 65_536

#: Kinds of documents.
XML: Final = 0
MESSAGE: Final = 1

#: Bytes as powers of two: the window holds the dictionary and the latest documents; small tables are quickly copied.
_WINDOW: Final = 12
_MEMORY: Final = 5

#: Packing 1: carriers' words, pairs of tags and closed values of the catalogue of version 0.2.0, what is most common last.
_DICTIONARY: Final = (
    b"<STATUSCODE>N801</STATUSCODE><REFERENCEDBY></REFERENCEDBY><REFERENCEVALUE></REFERENCEVALUE><CUSTOMPA"
    b"SSID></CUSTOMPASSID><PASSDATAID></PASSDATAID><SERIALNUMBER></SERIALNUMBER><TIMESTAMP></TIMESTAMP>id:"
    b" sub:001 dlvrd:001 submit date:26 done date:26 stat:UNDELIV err:000 stat:EXPIRED stat:REJECTD stat:D"
    b"ELIVRD text:Message expired by the network Absent subscriber Unknown subscriber Call barred Handset "
    b"not reachable Message rejected by the carrier Message accepted by the carrier, delivered to handset<"
    b"/POSTBACK>GENERATE_PASS</ORIGIN><CODE>N801</CODE><STATUSCODE>N802</STATUSCODE>GENERATE_PASS</ORIGIN>"
    b"<CODE>N802</CODE><STATUSCODE>N803</STATUSCODE>GENERATE_PASS</ORIGIN><CODE>N803</CODE><STATUSCODE>N81"
    b"1</STATUSCODE>GENERATE_PASS</ORIGIN><CODE>N811</CODE><EMAIL></EMAIL><CAMPAIGNID></CAMPAIGNID><SUBID>"
    b"</SUBID></POSTBACK>EMAIL_SUB</ORIGIN><CODE>N303</CODE>EMAIL_SUB</ORIGIN><CODE>N304</CODE><MOBILE></M"
    b"OBILE><CAMPAIGNID></CAMPAIGNID><SOURCE>API</<SOURCE>MO</<SOURCE>WEB</</SUBID><TIMESTAMP></TIMESTAMP>"
    b"<SHORTCODE></SHORTCODE><CAMPAIGNTITLE></CAMPAIGNTITLE><BRANDNAME></BRANDNAME><SOURCE>MANAGER</SOURCE"
    b"></POSTBACK>SUB</ORIGIN><CODE>N301</CODE></BRANDNAME><SOURCE>IMPORTED AS UNSUBSCRIBED</SOURCE></POST"
    b"BACK>SUB</ORIGIN><CODE>N302</CODE><SENTAS>SMS</<SENTAS>MMS</SENTAS><STATUS>Message Sent</STATUS><MMS"
    b"ID></MMSID><FROM></FROM><TO></TO><TRACKINGID></TRACKINGID><SPID></SPID><TIMESTAMP></TIMESTAMP><STATU"
    b"SDETAILS></STATUSDETAILS></POSTBACK>MMS_MT</ORIGIN><CODE>N101</CODE><STATUS>Message Failed</STATUS>M"
    b"MS_MT</ORIGIN><CODE>E101</CODE><STATUS>Message Sent/Expired</<STATUS>Message Sent/Rejected</</SENTAS"
    b"><STATUS>Message Sent/Delivered</STATUS></TIMESTAMP><HANDSET></HANDSET><AGGREGATORID></AGGREGATORID>"
    b"</POSTBACK>MMS_MT</ORIGIN><CODE>N102</CODE><STATUS>Message Sent/NotSupported</</SENTAS><STATUS>Messa"
    b"ge Sent/Failed</STATUS></TIMESTAMP><AGGREGATORID></AGGREGATORID><STATUSDETAILS></STATUSDETAILS></POS"
    b"TBACK>MMS_MT</ORIGIN><CODE>E102</CODE></STATUS><FROM></FROM>MMS_MT</ORIGIN><CODE>E202</CODE>MMS_MT</"
    b"ORIGIN><CODE>N501</CODE>MMS_MT</ORIGIN><CODE>N502</CODE>MMS_MT</ORIGIN><CODE>E501</CODE>MMS_MT</ORIG"
    b"IN><CODE>E502</CODE><MMSID></MMSID></POSTBACK>MMS_MT</ORIGIN><CODE>N003</CODE>MMS_MT</ORIGIN><CODE>N"
    b"013</CODE></MMSID><VIDEONAME></VIDEONAME></POSTBACK>MMS_MT</ORIGIN><CODE>E001</CODE></MMSID><AUDIONA"
    b"ME></AUDIONAME><VIDEONAME></VIDEONAME></POSTBACK>MMS_MT</ORIGIN><CODE>E002</CODE>MMS_MT</ORIGIN><COD"
    b"E>E012</CODE></VIDEONAME><AUDIONAME></AUDIONAME></POSTBACK>MMS_MT</ORIGIN><CODE>E003</CODE>MMS_MT</O"
    b"RIGIN><CODE>E013</CODE>MMS_MT</ORIGIN><CODE>N202</CODE><FROM></FROM></TO><KEYWORD></KEYWORD><SUBJECT"
    b"></SUBJECT><TRACKINGID></TRACKINGID></TIMESTAMP><CONTENT><FILE>https://</FILE></CONTENT></POSTBACK>M"
    b"MS_MO</ORIGIN><CODE>N401</CODE></TO><TEXT></TEXT><RECEIVED></RECEIVED><TRANSACTIONID></TRANSACTIONID"
    b"></POSTBACK>SMS_MO</ORIGIN><CODE>N211</CODE></FROM><FROM_MASK></FROM_MASK><TO></TO>SMS_MT</ORIGIN><C"
    b"ODE>E201</CODE>SMS_MT</ORIGIN><CODE>E202</CODE>SMS_MT</ORIGIN><CODE>N201</CODE>SMS_MT</ORIGIN><CODE>"
    b"N202</CODE><?xml version='1.0' encoding='UTF-8'?>\n<POSTBACK><ORIGIN>SMS_MT</ORIGIN><CODE>N202</CODE>"
    b"<STATUS>Message Sent/Delivered</STATUS><FROM>1</FROM><FROM_MASK>A</FROM_MASK><TO>1555</TO><TRACKINGI"
    b"D>TRACK_</TRACKINGID><SPID>00</SPID><TIMESTAMP>202-01-01T00:00:00+00:00</TIMESTAMP><AGGREGATORID></A"
    b"GGREGATORID><STATUSDETAILS></STATUSDETAILS></POSTBACK>"
)

_primed: Final = zlib.compressobj(6, zlib.DEFLATED, -_WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)

_PACK_OF: Final = text(
    "SELECT row_id, row_count, packing, pack FROM documents WHERE row_id <= :row_id ORDER BY row_id DESC LIMIT 1"
)


class Document(NamedTuple):
    """Document of one row.

    Attributes:
        kind: ``XML``, or ``MESSAGE`` for a message that could not be read.
        content: its bytes as they were sent; empty for a row without a document.
    """

    kind: int
    content: bytes


#: Document of a row that has none.
NONE: Final = Document(XML, b"")


def read(connection: Connection, row_id: int) -> Document | None:
    """Read the document of a row; None where it has none, or none any more.

    Raises:
        ValueError: a newer version has packed it, or it is damaged.
    """
    stored = connection.execute(_PACK_OF, {"row_id": row_id}).first()
    if stored is None or row_id >= stored.row_id + stored.row_count:
        return None
    document = unpack(stored.packing, stored.row_count, stored.pack)[row_id - stored.row_id]
    return document if document.content else None


def pack(documents: Sequence[Document]) -> bytes:
    """Pack the documents of neighbouring rows by ``PACKING``: their lengths and kinds, then their contents."""
    compressor = _primed.copy()
    head = b"".join([_varint(len(content) << 1 | kind) for kind, content in documents])
    return compressor.compress(head + b"".join([content for _, content in documents])) + compressor.flush()


def unpack(packing: int, row_count: int, packed: bytes) -> list[Document]:
    """Return the documents of so many rows that were packed.

    Raises:
        ValueError: a newer version has packed them, or they are damaged.
    """
    if packing != PACKING:
        raise ValueError(f"the document is of packing {packing}, and this version reads {PACKING}")
    decompressor = zlib.decompressobj(-_WINDOW, _DICTIONARY)
    try:
        plain = decompressor.decompress(packed)
    except zlib.error as error:
        raise ValueError(f"the packed documents are damaged: {error}") from None
    if not decompressor.eof:
        raise ValueError("the packed documents are cut off")
    at, heads = 0, []
    try:
        for _ in range(row_count):
            number, at = _read_varint(plain, at)
            heads.append(number)
    except IndexError:
        raise ValueError("the packed documents are cut off") from None
    documents = []
    for number in heads:
        documents.append(Document(number & 1, plain[at : at + (number >> 1)]))
        at += number >> 1
    return documents


def _varint(number: int) -> bytes:
    """Write a number in groups of 7 bits, the lowest first; all but the last byte have the highest bit."""
    written = bytearray()
    while number > 0x7F:
        written.append(number & 0x7F | 0x80)
        number >>= 7
    written.append(number)
    return bytes(written)


def _read_varint(plain: bytes, at: int) -> tuple[int, int]:
    """Read such a number; return it and where the next one begins."""
    number = shift = 0
    while True:
        byte = plain[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
