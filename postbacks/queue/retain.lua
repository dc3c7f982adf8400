-- retain: drops records past their retention, and the oldest delivered ones while the ledger takes
-- more memory than its share. Never one that waits, is sent, is parked; a dead one only by its age.
--
-- ARGV[2] ms relative to now, negative: what was done before that goes   ARGV[3] the same for the dead
-- ARGV[4] bytes the ledger may take   ARGV[5] records at most
-- Returns how many were dropped; as many as asked for means that there may be more.
local done_before, dead_before = tonumber(ARGV[2]), tonumber(ARGV[3])
local bytes_max, at_most = tonumber(ARGV[4]), tonumber(ARGV[5])
local dropped = 0

local function drop(index, id)
  local bytes = tonumber(redis.call('HGET', RECORD .. id, 'bytes') or 0)
  redis.call('DECRBY', LEDGER_BYTES, bytes)
  redis.call('DEL', RECORD .. id)
  redis.call('ZREM', index, id)
  dropped = dropped + 1
end

for _, id in ipairs(redis.call('ZRANGEBYSCORE', DONE, '-inf', now + done_before, 'LIMIT', 0, at_most)) do
  drop(DONE, id)
end
for _, id in ipairs(redis.call('ZRANGEBYSCORE', DEAD, '-inf', now + dead_before, 'LIMIT', 0, at_most - dropped)) do
  drop(DEAD, id)
end
while dropped < at_most and tonumber(redis.call('GET', LEDGER_BYTES) or 0) > bytes_max do
  local oldest = redis.call('ZRANGE', DONE, 0, 0)
  if #oldest == 0 then break end
  drop(DONE, oldest[1])
end
return dropped
