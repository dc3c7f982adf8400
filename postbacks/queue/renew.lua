-- renew: keeps the lease of a loop that has nothing to note or claim.
--
-- KEYS CLAIMERS
-- ARGV[2] token   ARGV[3] lease, ms
-- Returns 1 if the lease still stood, 0 if it was lost: its postbacks are somebody else's now.
-- Atomic: a lease that is taken back meanwhile is not renewed.
if not redis.call('ZSCORE', CLAIMERS, ARGV[2]) then return 0 end
redis.call('ZADD', CLAIMERS, now + tonumber(ARGV[3]), ARGV[2])
return 1
