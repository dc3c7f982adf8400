-- retract: drops a postback that was kept as dead for its id: it turned out to be the one that has the id.
--
-- KEYS DEAD, TOTALS, RECORD
-- ARGV[2] the id that it was kept under
-- Returns 1, or 0 where it is not kept any more.
-- Atomic: record and counters change together.
local id = ARGV[2]
if redis.call('EXISTS', RECORD .. id) == 0 or not redis.call('ZSCORE', DEAD, id) then return 0 end
drop(DEAD, id)
redis.call('HINCRBY', TOTALS, 'id_taken', -1)
changed[1] = id
publish_changes()
return 1
