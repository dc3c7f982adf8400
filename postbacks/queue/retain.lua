-- retain: drops records past their retention, the oldest delivered ones while the ledger takes more memory than its
-- share, and the oldest that came for accounts which nobody knows while these take more than theirs. Never one that
-- waits, is sent, is parked; any other dead one only by its age.
--
-- KEYS[last]  hash  totals of all workers
-- ARGV[2] ms relative to now, negative: what was done before that goes   ARGV[3] the same for the dead
-- ARGV[4] the same for those of unknown accounts and without a URL
-- ARGV[5] bytes the ledger may take   ARGV[6] of them bytes that those may take   ARGV[7] records at most
-- Returns how many were dropped; as many as asked for means that there may be more.
local done_before, dead_before, unrouted_before = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bytes_max, unrouted_bytes_max, at_most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local dropped = 0

local function drop_older(index, of, before)
  for _, id in ipairs(redis.call('ZRANGEBYSCORE', of, '-inf', now + before, 'LIMIT', 0, at_most - dropped)) do
    drop(index, id)
    dropped = dropped + 1
  end
end

local function drop_while_over(index, of, bytes, most)
  local before = dropped
  while dropped < at_most and tonumber(redis.call('GET', bytes) or 0) > most do
    local oldest = redis.call('ZRANGE', of, 0, 0)
    if #oldest == 0 then break end
    drop(index, oldest[1])
    dropped = dropped + 1
  end
  return dropped - before
end

drop_older(DONE, DONE, done_before)
drop_older(DEAD, DEAD, dead_before)
drop_older(DEAD, UNROUTED, unrouted_before)
drop_while_over(DONE, DONE, LEDGER_BYTES, bytes_max)
local early = drop_while_over(DEAD, UNROUTED, UNROUTED_BYTES, unrouted_bytes_max)
if early > 0 then redis.call('HINCRBY', KEYS[#KEYS], 'unrouted_dropped', early) end
return dropped
