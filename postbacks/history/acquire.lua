-- acquire: a recorder takes the lease of recorders, or renews it, and gives a sign of life.
--
-- KEYS HISTORY
-- ARGV[2] the recorder   ARGV[3] lease, ms
-- Returns 1, or 0 while another recorder holds the lease.
-- Atomic: one recorder holds the lease.
local holder, lease_ms = ARGV[2], tonumber(ARGV[3])
local lease = redis.call('HMGET', HISTORY, 'token', 'ends_ms')
local ends_ms = tonumber(lease[2] or 0)
-- a lease that ends later than any can is from before the clock was put back
if lease[1] and lease[1] ~= holder and ends_ms > now and ends_ms <= now + 2 * lease_ms then return 0 end
redis.call('HSET', HISTORY, 'token', holder, 'ends_ms', now + lease_ms, 'seen_ms', now)
return 1
