-- lease: gives orphaned claims a lease that has ended, so that reap.lua takes them back by its own
-- rule; and shortens leases that end later than any can (the clock was put back) to a whole one from now.
--
-- ARGV[2] length of a claim's lease, ms   ARGV[3] length of the intake's lease, ms
-- ARGV[4] ms that a lease may end too late before it counts as wrong   ARGV[5..] tokens of orphaned claims
-- Returns {claims given a lease, leases shortened}.
local lease_ms, intake_ms, slack_ms = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local adopted, shortened = 0, 0
for i = 5, #ARGV do
  local token = ARGV[i]
  if redis.call('EXISTS', CLAIMS .. token) == 1 then
    adopted = adopted + redis.call('ZADD', CLAIMERS, 'NX', 1, token) -- 0 is the lease of a loop that was seen to die
  end
end
for _, token in ipairs(redis.call('ZRANGEBYSCORE', CLAIMERS, now + lease_ms + slack_ms, '+inf')) do
  redis.call('ZADD', CLAIMERS, now + lease_ms, token)
  shortened = shortened + 1
end
local ends = tonumber(redis.call('HGET', INTAKE_LEASE, 'expires_ms') or 0)
if ends > now + intake_ms + slack_ms then
  redis.call('HSET', INTAKE_LEASE, 'expires_ms', now + intake_ms)
  shortened = shortened + 1
end
return { adopted, shortened }
