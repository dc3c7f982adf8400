-- release: gives the lease of recorders back, so that the next recorder need not wait for its end.
--
-- KEYS HISTORY
-- ARGV[2] the recorder
-- Returns 1 if the lease was its own, else 0.
-- Atomic: only the holder of the lease gives it back.
if redis.call('HGET', HISTORY, 'token') ~= ARGV[2] then return 0 end
redis.call('HDEL', HISTORY, 'token', 'ends_ms')
return 1
