-- retain: drops records past their retention, and before it the oldest done ones while the ledger takes more than its share of
-- the memory, the oldest dead of unknown accounts while these take more than theirs, and the oldest dead of an account, stubs
-- first, while they take more than theirs; of the dead opt-outs last. Never one that waits, is sent or is parked. What the history
-- has not recorded yet stays past its retention, until a share takes it.
--
-- KEYS DONE, DEAD, DEAD_BYTES, LEDGER_BYTES, UNROUTED, UNROUTED_BYTES, TOTALS
-- ARGV[2] ms relative to now, negative: what was done before that goes   ARGV[3] the same for the dead
-- ARGV[4] the same for those of unknown accounts and without a URL
-- ARGV[5] bytes that the ledger may take   ARGV[6] of them bytes that those may take   ARGV[7] records at most
-- ARGV[8] bytes that the dead of an account may take   ARGV[9] bytes of its dead from which an account is near that share
-- Returns {how many were dropped, accounts whose dead were dropped early, how many of each, accounts near their share, how many
--   were dropped that were not recorded}; as many as asked for means that there may be more.
-- Atomic: a record and its place in every index go together.
local done_before, dead_before, unrouted_before = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local bytes_max, unrouted_bytes_max, at_most = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local dead_bytes_max, near_from = tonumber(ARGV[8]), ARGV[9]
local ACCOUNTS_MAX = 20 -- that a call looks at
local dropped = 0

-- Drops what has stood in `set`, a part of an index, since before then; `from` is what its scores have beside the time.
local function drop_older(index, set, before, from)
  local old = redis.call('ZRANGEBYSCORE', set, from, from + now + before, 'WITHSCORES', 'LIMIT', 0, at_most - dropped)
  for i = 1, #old, 2 do
    if tonumber(old[i + 1]) - from >= unrecorded_since() then return end
    drop(index, old[i])
    dropped = dropped + 1
  end
end

-- Counts a postback that is dropped although its end, at that time, may not be recorded.
local unrecorded = 0
local function count_unrecorded(ended_ms)
  if tonumber(ended_ms) % OPT_OUTS_FROM >= unrecorded_since() then unrecorded = unrecorded + 1 end
end

-- Drops the oldest of `set` while its bytes are more than `most`. Returns how many.
local function drop_while_over(index, set, bytes, most)
  local before = dropped
  while dropped < at_most and tonumber(redis.call('GET', bytes) or 0) > most do
    local oldest = redis.call('ZRANGE', set, 0, 0, 'WITHSCORES')
    if #oldest == 0 then break end
    count_unrecorded(oldest[2])
    drop(index, oldest[1])
    dropped = dropped + 1
  end
  return dropped - before
end

drop_older(DONE, DONE, done_before, 0)
drop_older(DEAD, DEAD, dead_before, 0)
drop_older(DEAD, UNROUTED, unrouted_before, 0)
drop_older(DEAD, UNROUTED, unrouted_before, OPT_OUTS_FROM)
drop_while_over(DONE, DONE, LEDGER_BYTES, bytes_max)
local early = drop_while_over(DEAD, UNROUTED, UNROUTED_BYTES, unrouted_bytes_max)
if early > 0 then redis.call('HINCRBY', TOTALS, 'unrouted_dropped', early) end

local accounts, counts, before_all = {}, {}, dropped
for _, account in ipairs(redis.call('ZRANGEBYSCORE', DEAD_BYTES, '(' .. dead_bytes_max, '+inf', 'LIMIT', 0, ACCOUNTS_MAX)) do
  local before = dropped
  while dropped < at_most do
    local id = oldest_dead_of(account, at_most)
    if not id or tonumber(redis.call('ZSCORE', DEAD_BYTES, account) or 0) <= dead_bytes_max then break end
    count_unrecorded(redis.call('ZSCORE', DEAD, id))
    drop(DEAD, id)
    dropped = dropped + 1
  end
  if dropped > before then accounts[#accounts + 1], counts[#counts + 1] = account, dropped - before end
end
if dropped > before_all then redis.call('HINCRBY', TOTALS, 'dead_dropped', dropped - before_all) end
local near = redis.call('ZRANGEBYSCORE', DEAD_BYTES, '(' .. near_from, '+inf', 'LIMIT', 0, ACCOUNTS_MAX)
if unrecorded > 0 then redis.call('HINCRBY', TOTALS, 'unrecorded_dropped', unrecorded) end
return { dropped, accounts, counts, near, unrecorded }
