-- accept_alone: notes that from here on only the first message of the intake can be what the tick dies of. A script, as a full
-- broker refuses a command of its own.
--
-- KEYS INTAKE_LEASE
-- ARGV[2] token of the tick
-- Returns 1 if the lease was ours, else 0.
-- Atomic: only the holder of the lease writes.
if redis.call('HGET', INTAKE_LEASE, 'token') ~= ARGV[2] then return 0 end
redis.call('HSET', INTAKE_LEASE, 'alone', 1)
return 1
