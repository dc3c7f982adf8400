-- snapshot: what waits in the lanes of one page of accounts, by group and by whether the lane fails; with the first page
-- also what delivering loops have claimed and which accounts are down. Reads only.
--
-- KEYS FAILING, ROUTES, PAUSES, CLAIMERS, BACKLOG, LANE, LANE_STATE, RECORD, CLAIMS
-- ARGV[2] cursor of the page, 0 first   ARGV[3] accounts a page, about   ARGV[4] ms from a failure to its resend
-- ARGV[5] claims of a loop up to which they are counted one by one; of more a sample is taken
-- ARGV[6] ms for which every attempt has failed of what is down   ARGV[7] lanes checked for that at most
-- ARGV[8..] the groups
-- Returns {now, next cursor, lanes, backlogs, claims, still, down, paused}:
--   lanes     {group, failing 0/1, waiting, since when the longest waiting one could be sent in ms or 0, its account,
--             ids in the longest lane, its account}; without what `still` and `paused` have
--   backlogs  {account, open postbacks, …}
--   claims    {token, lease's end, claimed, of them with a POST that may be open}; with the first page alone
--   still     {account, state, since when, waiting} of those for which nothing can be sent (`queue/routes.py`)
--   down      {account, since when}, those first that have been for the longest; with the first page alone
--   paused    {account, its entry in PAUSES, waiting, when the longest waiting one was accepted} of those that are paused
local cursor, page, resend_ms, count_max = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local down_ms, failing_max = tonumber(ARGV[6]), tonumber(ARGV[7])
local FIRST = 8

local lanes, lanes_of, still, paused = {}, {}, {}, {}
for i = FIRST, #ARGV do
  for failing = 0, 1 do
    local row = { ARGV[i], failing, 0, 0, '', 0, '' }
    lanes[#lanes + 1] = row
    lanes_of[ARGV[i] .. failing] = row
  end
end

-- since when a postback could be sent: a resend since its countdown ended, which its last attempt dates; nothing while its account
-- was paused
local function waiting_since(id, resumed)
  local r = redis.call('HMGET', RECORD .. id, 'created_ms', 'failures', 'sent_ms', 'ready_ms')
  local since = math.max(tonumber(r[1] or 0), tonumber(r[4] or 0), resumed)
  if tonumber(r[2] or 0) > 0 and r[3] then since = math.max(since, math.min(now, tonumber(r[3]) + resend_ms)) end
  return since
end

-- state of an account for which nothing is sent, be it that it is paused, and since when its row says so; nil for any other, and
-- when its last pause ended, 0 for none
local function standing_still(account)
  local since, mark, at, state = string.match(redis.call('HGET', ROUTES, account) or '', '^(%d+) ?(%a*) ?(%S*)\n(%a+)\n')
  if not state then return nil, 0 end
  if state ~= 'on' then return state, since end
  if mark == 'paused' and (at == '-' or tonumber(at) > now) then return 'paused', since end
  return nil, tonumber(at) or 0
end

local scanned = redis.call('HSCAN', BACKLOG, cursor, 'COUNT', page)
for i = 1, #scanned[2], 2 do
  local account, row_of_still, row_of_paused = scanned[2][i], nil, nil
  local looked, state, since = false, nil, 0
  for at = FIRST, #ARGV do
    local lane = account .. '/' .. ARGV[at]
    local waiting = redis.call('LLEN', LANE .. lane)
    if waiting > 0 and not looked then
      looked, state, since = true, standing_still(account)
    end
    if waiting == 0 then
      -- nothing to count
    elseif state == 'paused' then
      if not row_of_paused then
        row_of_paused = { account, redis.call('HGET', PAUSES, account) or '', 0, 0 }
        paused[#paused + 1] = row_of_paused
      end
      local accepted = tonumber(redis.call('HGET', RECORD .. redis.call('LINDEX', LANE .. lane, 0), 'created_ms') or now)
      row_of_paused[3] = row_of_paused[3] + waiting
      row_of_paused[4] = row_of_paused[4] == 0 and accepted or math.min(row_of_paused[4], accepted)
    elseif state and not row_of_still then
      row_of_still = { account, state, since, waiting }
      still[#still + 1] = row_of_still
    elseif state then
      row_of_still[4] = row_of_still[4] + waiting
    else
      local failing = redis.call('HGET', LANE_STATE .. lane, 'failing') == '1' and 1 or 0
      local row = lanes_of[ARGV[at] .. failing]
      row[3] = row[3] + waiting
      local oldest = waiting_since(redis.call('LINDEX', LANE .. lane, 0), since)
      if oldest > 0 and (row[4] == 0 or oldest < row[4]) then row[4], row[5] = oldest, account end
      if waiting > row[6] then row[6], row[7] = waiting, account end
    end
  end
end

local claims, down = {}, {}
if cursor == '0' then
  local is_down = {}
  local failing = redis.call('ZRANGE', FAILING, '-inf', now - down_ms, 'BYSCORE', 'LIMIT', 0, failing_max, 'WITHSCORES')
  for i = 1, #failing, 2 do
    local account = account_of(failing[i])
    if not is_down[account] and redis.call('HGET', LANE_STATE .. failing[i], 'failing') == '1'
        and not standing_still(account) then
      is_down[account] = true
      down[#down + 1] = { account, failing[i + 1] }
    end
  end
  local leases = redis.call('ZRANGE', CLAIMERS, 0, 999, 'WITHSCORES')
  for i = 1, #leases, 2 do
    local key = CLAIMS .. leases[i]
    local size, values, open = redis.call('HLEN', key), nil, 0
    if size <= count_max then
      values = redis.call('HVALS', key)
      for _, value in ipairs(values) do if value == '1' then open = open + 1 end end
    else
      values = redis.call('HRANDFIELD', key, count_max, 'WITHVALUES')
      for at = 2, #values, 2 do if values[at] == '1' then open = open + 1 end end
      open = math.floor(open * size / count_max + 0.5)
    end
    claims[#claims + 1] = { leases[i], leases[i + 1], size, open }
  end
end
return { now, scanned[1], lanes, scanned[2], claims, still, down, paused }
