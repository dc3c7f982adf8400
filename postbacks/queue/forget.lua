-- forget: drops the latest numbers of accounts that have been idle for a while, and finds rows of accounts that are old, for the
-- caller to look up. A number is a time of the clock, so the next one is above it without an entry too. A few of each are
-- looked at, at random; of the numbers more while many of them are idle.
--
-- KEYS ROUTES, SEQUENCE, TICKS
-- ARGV[2] ms that an account must have been idle, or its row must be old   ARGV[3] version whose ticks count on from the entry
--   alone: nothing is dropped for as long after one of them
-- Returns {how many were dropped, 500 and a sample at most; the accounts whose rows are old}.
-- Atomic: nothing is accepted between the look and the drop.
local before, counts_on = now - tonumber(ARGV[2]), ARGV[3]
local SAMPLE, AT_MOST, ROWS = 20, 500, 2
local dropped = 0
repeat
  local sample, idle = redis.call('HRANDFIELD', SEQUENCE, SAMPLE, 'WITHVALUES'), {}
  for i = 1, #sample, 2 do
    if (tonumber(sample[i + 1]) or 0) < before then idle[#idle + 1] = sample[i] end
  end
  if #idle > 0 and tonumber(redis.call('HGET', TICKS, counts_on) or 0) > before then break end
  call_many('HDEL', SEQUENCE, idle)
  dropped = dropped + #idle
until #idle * 4 <= SAMPLE or dropped >= AT_MOST
local old, rows = {}, redis.call('HRANDFIELD', ROUTES, ROWS, 'WITHVALUES')
for i = 1, #rows, 2 do
  if tonumber(string.match(rows[i + 1], '^%d+') or 0) < before then old[#old + 1] = rows[i] end
end
return { dropped, old }
