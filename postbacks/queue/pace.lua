-- pace: the weight, the rate and the most open POSTs of accounts, where the other scripts read them. What waits
-- by an account's former ones takes turns again.
--
-- KEYS PACING, RATES
-- ARGV[2..] two an account: its name, and weight, us between two POSTs (0 for no rate) and POSTs open at most
--   (0 for any number), with a space between, or '' for what every account has
-- Returns how many of them have changed.
local changed = 0
for at = 2, #ARGV, 2 do
  local account, text = ARGV[at], ARGV[at + 1]
  if (redis.call('HGET', PACING, account) or '') ~= text then
    if text == '' then
      redis.call('HDEL', PACING, account)
      redis.call('HDEL', RATES, account)
    else
      redis.call('HSET', PACING, account, text)
    end
    take_turns_again(account)
    changed = changed + 1
  end
end
return changed
