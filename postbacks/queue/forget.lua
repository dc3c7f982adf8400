-- forget: drops the latest numbers of accounts that have been idle for a while. A number is a time of the clock, so the
-- next one is above it without an entry too. A few are looked at, at random, and more while many of them are idle.
--
-- KEYS[last]  hash  postbacks:ticks
-- ARGV[2] ms that an account must have been idle   ARGV[3] version whose ticks count on from the entry alone: nothing is
--   dropped for as long after one of them
-- Returns how many were dropped; a call drops 500 and a sample at most.
local idle_ms, counts_on = tonumber(ARGV[2]), ARGV[3]
local SAMPLE, AT_MOST = 20, 500
local before, dropped = now - idle_ms, 0
if tonumber(redis.call('HGET', KEYS[#KEYS], counts_on) or 0) > before then return 0 end
repeat
  local sample, idle = redis.call('HRANDFIELD', SEQUENCE, SAMPLE, 'WITHVALUES'), {}
  for i = 1, #sample, 2 do
    if tonumber(sample[i + 1]) < before then idle[#idle + 1] = sample[i] end
  end
  call_many('HDEL', SEQUENCE, idle)
  dropped = dropped + #idle
until #idle * 4 <= SAMPLE or dropped >= AT_MOST
return dropped
