-- end_intake: gives the intake's lease back, so that the next tick need not wait for its end.
--
-- ARGV[2] token of the tick
-- Returns 1 if the lease was ours, else 0.
if redis.call('HGET', INTAKE_LEASE, 'token') ~= ARGV[2] then return 0 end
return redis.call('DEL', INTAKE_LEASE)
