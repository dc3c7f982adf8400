"""The ledger of losses: kill anything at any moment, count every postback afterwards (``make crash``).

``plan`` says what dies when, ``run`` lets it die while ``producer`` sends and ``receive`` writes down,
``look`` reads what the broker holds at the end, and ``ledger`` compares the three lists.
"""
