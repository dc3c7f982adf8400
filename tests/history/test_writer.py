"""Writer."""

from records import delivered
from sqlalchemy import text

from postbacks.history.transactions import reading


def test_a(writer, database):
    writer.write([delivered("x")])
    with reading(database) as c:
        print(c.execute(text("select * from postbacks_readable")).all())
