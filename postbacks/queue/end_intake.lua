-- end_intake: gives the intake's lease back, so that the next tick need not wait for its end. What is known of deaths stays as
-- long as messages do.
--
-- KEYS INTAKE_LEASE
-- ARGV[2] token of the tick
-- Returns 1 if the lease was ours, else 0.
-- Atomic: only the holder of the lease writes.
if redis.call('HGET', INTAKE_LEASE, 'token') ~= ARGV[2] then return 0 end
redis.call('HDEL', INTAKE_LEASE, 'token', 'expires_ms', 'alone')
return 1
