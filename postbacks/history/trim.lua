-- trim: drops the entries that are recorded, and notes until where: a database that has less has lost what it had.
--
-- KEYS CHANGES, HISTORY
-- ARGV[2] the first id that may stay   ARGV[3] the last id that goes
-- Returns how many entries went.
-- Atomic: no entry goes without the note.
local trimmed = redis.call('XTRIM', CHANGES, 'MINID', ARGV[2])
if trimmed > 0 then redis.call('HSET', HISTORY, 'trimmed_id', ARGV[3]) end
return trimmed
