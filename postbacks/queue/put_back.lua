-- put_back: sends a dead or skipped postback again whose record has left the broker, from the copy that the history has of it:
-- its record as it was, with its notes, so that its next attempt has the next number (`_resend.lua`).
--
-- ARGV[2] schema version of records   ARGV[3] bytes of memory that a record takes beside its own texts (an estimate)
-- ARGV[4] who sends it again
-- ARGV[5..] a PutBackRow (rows.py): id, account, group, origin, code, url, endpoint, xml, created_ms, sequence, attempts, digest,
--   own, first_id, alone, opt_out
-- ARGV[21..] its notes: the number of an attempt and the attempt as JSON, in turn
-- Returns the state the postback is in afterwards. Where the broker has a record of its id, nothing is changed.
-- Atomic: its record and its place come together.
local WIDTH, FIRST = 16, 5
local notes = {}
for i = 21, #ARGV do notes[#notes + 1] = ARGV[i] end
local row = { unpack(ARGV, FIRST, FIRST + WIDTH - 1) }
local state = send_copy(row, notes, ARGV[2], tonumber(ARGV[3]), resend_note(ARGV[4], ''))
publish_changes()
return state
