-- replay: sends a dead or skipped postback again (`_resend.lua`).
--
-- ARGV[2] id   ARGV[3] how the reason of a message begins that only a newer version could read
-- ARGV[4] who sends it again
-- Returns the state the postback is in afterwards ('queued': back in the queue), '' if the ledger does not have it.
-- Atomic: it leaves the dead and joins its lane in one step.
local state = send_again(ARGV[2], { dead = true, skipped = true }, ARGV[3], resend_note(ARGV[4], ''))
publish_changes()
return state
