-- Exact rate limits by a script, for servers that load no module: the engine `script` of the clients beside this folder.
--
-- It answers as RATELIMIT.HIT, PEEK, MHIT and REFUND do, by the server's clock, and replicates what it changed, not itself.
-- docs/commands.md explains the six integers. It runs on Redis from version 5 on, and on Valkey.
--
--   KEYS  one for each log. The clients add `:ratelimit` to the names they are given, so that a log of this script and a log of
--         the module, which is a stream, are never at the same key.
--   ARGV  mode: hit, peek, strict, force or refund
--         tiers: 1 for the six integers of every tier, 0 for those of the tier that binds
--         and then for each key: the number of its tiers, 1 to 8; the cost, 1 to 2^53 - 1 units, which for peek may be 0; and
--         for each tier the limit, 0 to 2^53 - 1 units, and the window, 1 ms to 3650 days in milliseconds.
--         For refund only: refund, 0, units.
--
-- The reply is six integers, or an array of them for `tiers`; with two keys or more, an array of such replies; for refund, how
-- many units were given back. An error changes nothing.
--
-- A log is a list of hits. Each has its time, and the total of all units up to it. So what a window holds is a subtraction: the
-- newest total less the total before the window's first hit. Totals count modulo 2^53, which Lua's numbers hold exactly. That is
-- enough because a log remembers only its newest 2^53 - 1 units: no limit is larger, so older ones change no verdict and no wait.
--
-- The hits lie in blocks, which are fields of a hash. A block is the total before its first hit, then the time and the total of
-- each hit. The field `h` holds the state and the newest block. When this has 32 hits, the older 16 become a block of their own,
-- in a field named by its number. Most calls read one field and write one; a search in a long log reads a few more. The state:
--
--   oldest    number of the first block that still lies in the hash
--   first     number of the first block that counts; those before it are deleted a few at a time
--   current   number of the newest block, the one in `h`
--   origin    total before the first hit that counts
--   longest   window in force: how long hits are kept
--   fallback  longest window among those who still call, while `longest` may be on its way out; else 0
--   expires   when the key expires
--
-- The last three follow the rule of src/limiter/retention.rs.

local MOST, WRAP = 9007199254740991, 9007199254740992 -- 2^53 - 1 units, and the modulus of totals
local TEN_YEARS = 315360000000 -- milliseconds
local STATE, HIT, TIME, TOTAL = '<I5I5I5I7I5I5I6', '<I6I7', '<I6', '<I7' -- 38, 13, 6 and 7 bytes
local HEAD = 39 -- where the newest block begins in `h`; the others begin at 1
local BLOCK, FULL = 16, 32 -- hits
local FEW = 8 -- hits that may have left before the newest block is cut
local DELETED = 64 -- most blocks that one call deletes

local call, spread, sub, floor, max = redis.call, unpack, string.sub, math.floor, math.max
local pack, unpack = struct.pack, struct.unpack

local mode, with_tiers = ARGV[1], ARGV[2] == '1'
local clock = call('TIME')
clock = clock[1] * 1000 + floor(clock[2] / 1000)

-- The log that is being looked at: the field `h`, the number of hits in it, and its state.
local key, head, count, oldest, first, current, origin, longest, fallback, expires
local newest, total -- of the newest hit; 0 if there is none
local now -- the clock, or the time of the newest hit if that is later, because the clock was set back
local changed -- the state differs from that in `h`
local stale -- a log lies at the key, but no longer counts

local function load(name)
  key, head, changed, stale = name, call('HGET', name, 'h'), false, false
  if head then
    count = (#head - HEAD - 6) / 13
    if count < 1 or count % 1 > 0 then error('the hash at this key was not written by this script, it is left as it was') end
    oldest, first, current, origin, longest, fallback, expires = unpack(STATE, head)
    newest, total = unpack(HIT, head, #head - 12)
    now = max(newest, clock)
    stale = newest > clock + longest -- further ahead of the clock than hits are kept
  end
  if not head or stale then
    head, changed, count, now, newest, total = ('\0'):rep(HEAD + 6), true, 0, clock, 0, 0
    oldest, first, current, origin, longest, fallback, expires = 1, 1, 1, 0, 0, 0, 0
  end
end

-- In a block of `length` hits that begins at `at`: which is the first hit whose time or total, counted from `zero`, has come to
-- `goal`; length + 1 if none has. The first one is tried first, because it is the likeliest.
local function search(block, at, length, format, zero, goal)
  local skip = format == TIME and at - 6 or at
  local low, high, middle = 1, length + 1, 1
  while low < high do
    if (unpack(format, block, skip + 13 * middle) - zero) % WRAP >= goal then high = middle else low = middle + 1 end
    middle = floor((low + high) / 2)
  end
  return low
end

-- The same in the whole log: the hit's number in its block, the block, where it begins, and the block's number. The search begins
-- at `guess`, a share of the log, goes up or down in growing steps, and then halves what is left.
local function find(format, zero, goal, guess)
  local hit = search(head, HEAD, count, format, zero, goal)
  if hit > 1 or first == current then return hit, head, HEAD, current end
  local low, high, found, passed = first, current, head, false
  local probe, step = floor(first + (current - first - 1) * guess), 1
  while low < high do
    local block = call('HGET', key, probe)
    if (unpack(format, block, #block - (format == TIME and 12 or 6)) - zero) % WRAP >= goal then
      high, found, probe = probe, block, probe - step
    else
      low, passed, probe = probe + 1, true, probe + step
    end
    if passed and high < current or probe < low or probe >= high then probe = floor((low + high) / 2) end
    step = step * 2
  end
  if high == current then return hit, head, HEAD, current end
  return search(found, 1, (#found - 7) / 13, format, zero, goal), found, 1, high
end

-- Fills in what the tiers' windows hold: units, and the time of the first hit, or nil. True if the cost fits into all of them.
local function look(group)
  local room = true
  for _, tier in ipairs(group) do
    local window = tier.window
    local hit, block, at, number = count + 1, head, HEAD, current
    tier.used, tier.since = 0, nil
    if newest > now - window then
      hit, block, at, number = find(TIME, 0, now - window + 1, window < longest and 1 - window / longest or 0)
      tier.used = (total - unpack(TOTAL, block, at + 13 * hit - 13)) % WRAP
      tier.since = unpack(TIME, block, at + 13 * hit - 6)
    end
    if window == group.window then group.hit, group.block, group.at, group.number = hit, block, at, number end
    room = room and group.cost <= tier.limit - tier.used
  end
  return room or group.cost == 0
end

-- A key's expiry. That of a steady log is set once in an eighth of its window.
local function renewed(window) return now + window + floor(window / 8) end

-- Writes the log. HSET comes first, so that nothing is written if memory is short.
local function save(expired, ...)
  if stale then call('UNLINK', key) end
  if changed or expires ~= expired then
    head = pack(STATE, oldest, first, current, origin, longest, fallback, expires) .. sub(head, HEAD)
  end
  call('HSET', key, 'h', head, ...)
  if expires ~= expired then call('PEXPIREAT', key, expires) end
end

-- Lets the log begin with this hit, before which the total is `base`.
local function cut(base, hit, block, at, number)
  if number == current then
    head, count = sub(head, 1, HEAD - 1) .. pack(TOTAL, base) .. sub(head, HEAD + 13 * hit - 6), count - hit + 1
  elseif unpack(TOTAL, block) ~= base then
    call('HSET', key, number, pack(TOTAL, base) .. sub(block, 13 * hit - 5))
  end
  first, origin, changed = number, base, true
end

-- Stores a hit of the group's cost, now.
local function store(group)
  local window, cost, expired = group.window, group.cost, expires
  if window >= longest then
    if window > longest or fallback > 0 then longest, fallback, changed = window, 0, true end
    if expires < now + window then expires = renewed(window) end
  elseif fallback == 0 then
    if expires < now + longest then fallback, expires = window, renewed(longest) + longest end
  else
    if window > fallback then fallback, changed = window, true end
    if expires <= now + longest then
      longest, fallback = fallback, 0
      expires = renewed(longest)
    end
  end

  -- What has expired is cut off, where this call knows it, or before a block is split.
  local hit, block, at, number = group.hit, group.block, group.at, group.number
  if window < longest then
    hit, number = 1, first
    if count == FULL - 1 then hit, block, at, number = find(TIME, 0, now - longest + 1, 0) end
  end
  if number == current and hit > FEW then
    cut(unpack(TOTAL, head, HEAD + 13 * hit - 13), hit, head, HEAD, number)
  elseif number > first then
    cut(unpack(TOTAL, block, at), 1, block, at, number)
  end
  -- So is what exceeds 2^53 - 1 units.
  local after = (total - (WRAP - cost)) % WRAP
  local surplus = (total - origin) % WRAP - (MOST - cost)
  if surplus > 0 then cut((after + 1) % WRAP, find(TOTAL, origin, surplus + 1, 0)) end

  head, count = head .. pack(HIT, now, after), count + 1
  local full, dead
  if count == FULL then
    -- A hit ends with its total, and a block begins with the total before it: seven bytes are in both.
    full = sub(head, HEAD, HEAD + 13 * BLOCK + 6)
    head = sub(head, 1, HEAD - 1) .. sub(head, HEAD + 13 * BLOCK)
    current, changed = current + 1, true
  end
  if oldest < first then
    dead = {}
    while oldest < first and #dead < DELETED do
      dead[#dead + 1], oldest = oldest, oldest + 1
    end
    changed = true
  end
  if full then save(expired, current - 1, full) else save(expired) end
  if dead then call('HDEL', key, spread(dead)) end
end

-- After a refusal that is not stored. A policy that is still asked is still in force, and nobody is told to wait longer than the
-- key lives. There is something to write only where policies share a key.
local function keep(window, wait)
  local expired = expires
  if fallback > 0 and window > fallback and expires < now + 2 * longest then expires = renewed(longest) + longest end
  if count > 0 and window > longest and clock + wait > expires then expires = renewed(window) end
  if expires ~= expired then save(expired) end
end

-- A hit weighs at least 1, so blocks beyond the newest `most` hits can change no answer. True if there were such blocks; they no
-- longer count. So a log of strict refusals does not grow without end.
local function bound(most)
  local number = max(first, current - max(0, math.ceil((most - count) / BLOCK)))
  if number == first then return false end
  first, changed = number, true
  origin = unpack(TOTAL, number == current and sub(head, HEAD) or call('HGET', key, number))
  return true
end

-- The six integers of the tier that binds, or of all tiers; and how long a refused call must wait, -1 for ever.
local function answer(group, allowed, refused, weight)
  local cost, all, binding, highest = group.cost, {}, nil, nil
  for nth = 1, #group do
    local tier = group[nth]
    local limit, leaves = tier.limit, tier.window - clock
    local left, wait = limit - tier.used - weight, 0
    if refused and cost > limit then
      wait = -1
    elseif refused and cost > left then
      -- Until the hit has left with which enough units have. That may be the hit of this very call.
      local missing, since = cost - limit + weight, now
      if missing <= 0 then
        local hit, block, at = find(TOTAL, origin, (total - origin) % WRAP + missing, 0)
        since = unpack(TIME, block, at + 13 * hit - 6)
      end
      wait = since + leaves
    end
    local oldest_live, newest_live = tier.since, tier.since and newest
    if weight > 0 then oldest_live, newest_live = oldest_live or now, now end
    left = max(left, 0)
    all[nth] = {
      allowed and 1 or 0, limit, left, wait, newest_live and newest_live + leaves or 0, oldest_live and oldest_live + leaves or 0,
    }
    local rank = not refused and -left or wait < 0 and math.huge or wait
    if nth == 1 or rank > highest then binding, highest = nth, rank end
  end
  return with_tiers and all or all[binding], all[binding][4]
end

-- Takes back the newest units, of at most 1,024 hits, and returns how many. What is left of a hit is recorded anew, now.
local function refund(units)
  local owed, rest, hits, expired, newest_block = units, 0, 1024, expires, current
  while true do
    if count == 0 and current > first then
      current, changed = current - 1, true
      head = sub(head, 1, HEAD - 1) .. call('HGET', key, current)
      count = (#head - HEAD - 6) / 13
    end
    if owed == 0 or hits == 0 or count == 0 then break end
    local since, upto = unpack(HIT, head, HEAD + 13 * count - 6)
    if since <= now - longest then break end
    total = unpack(TOTAL, head, HEAD + 13 * count - 13)
    local weight = (upto - total) % WRAP
    owed, rest = max(owed - weight, 0), max(weight - owed, 0)
    count, hits = count - 1, hits - 1
  end
  if owed == units then return 0 end
  if count == 0 and rest == 0 then
    call('UNLINK', key)
    return units - owed
  end
  head = sub(head, 1, HEAD + 13 * count + 6)
  if rest > 0 then
    head = head .. pack(HIT, now, (total - (WRAP - rest)) % WRAP)
    if expires < now + longest then expires = renewed(longest) end
  end
  save(expired)
  for number = current, newest_block - 1 do call('HDEL', key, number) end
  return units - owed
end

-- A whole number in a range, or nil.
local function integer(text, least, most)
  local number = tonumber(text)
  return number and number >= least and number <= most and number % 1 == 0 and number or nil
end

local function failure(text) return { err = 'ERR ' .. text } end

if mode == 'refund' then
  local units = integer(ARGV[3], 1, MOST)
  if not units then return failure('cost is not an integer or out of range') end
  load(KEYS[1])
  return refund(units)
end
if mode ~= 'hit' and mode ~= 'peek' and mode ~= 'strict' and mode ~= 'force' then return failure('syntax error') end

local groups, seen, next_argument = {}, {}, 3
for nth, name in ipairs(KEYS) do
  if seen[name] then return failure('a key may be named only once') end
  seen[name] = true
  local tiers = integer(ARGV[next_argument], 1, 8)
  local cost = integer(ARGV[next_argument + 1], mode == 'peek' and 0 or 1, MOST)
  if not tiers then return failure('too many tiers, at most 8 are allowed') end
  if not cost then return failure('cost is not an integer or out of range') end
  local group = { cost = cost, window = 0, least = MOST, most = 0 }
  for tier = 1, tiers do
    local limit = integer(ARGV[next_argument + 2 * tier], 0, MOST)
    local window = integer(ARGV[next_argument + 2 * tier + 1], 1, TEN_YEARS)
    if not limit then return failure('limit is not an integer or out of range') end
    if not window then return failure('window is not a whole number of milliseconds from 1 to 3650 days') end
    group[tier] = { limit = limit, window = window, used = 0, since = nil }
    group.window = max(group.window, window)
    group.least, group.most = math.min(group.least, limit), max(group.most, limit)
  end
  groups[nth] = group
  next_argument = next_argument + 2 + 2 * tiers
end
if #ARGV >= next_argument then return failure('syntax error') end

-- Several keys are looked at twice: first for the verdict, on which all depend, then to answer and to write.
local allowed, replies = true, {}
for pass = #KEYS > 1 and 1 or 2, 2 do
  for nth, group in ipairs(groups) do
    load(KEYS[nth])
    local room = look(group)
    if pass == 1 or #KEYS == 1 then allowed = allowed and room end
    if pass == 2 then
      local refused = not allowed and not room
      local strict = mode == 'strict' and refused and group.cost <= group.least
      if strict and bound(group.most) then look(group) end
      local stored = (allowed or strict or mode == 'force') and group.cost > 0
      local reply, wait = answer(group, allowed, refused, stored and group.cost or 0)
      replies[nth] = reply
      if mode ~= 'peek' then
        if stored then store(group) elseif head then keep(group.window, wait) end
      end
    end
  end
end
return #KEYS == 1 and replies[1] or replies
