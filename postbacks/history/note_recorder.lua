-- note_recorder: a recorder notes what it does, or why it waits (`history/status.py`).
--
-- KEYS HISTORY
-- ARGV[2] the recorder   ARGV[3] its note (JSON)
-- Returns 1, or 0 while another recorder holds the lease.
-- Atomic: a recorder that was frozen does not write over the note of the one that works.
local token = redis.call('HGET', HISTORY, 'token')
if token and token ~= ARGV[2] then return 0 end
redis.call('HSET', HISTORY, 'recorder', ARGV[3])
return 1
