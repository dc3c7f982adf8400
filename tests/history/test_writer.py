"""Writer."""

from records import delivered, ACCEPTED_MS
from postbacks.history.transactions import reading
from sqlalchemy import text


def test_a(writer, database):
    writer.write([delivered("x")])
    with reading(database) as c:
        print(c.execute(text("select * from postbacks_readable")).all())
