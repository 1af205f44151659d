-- Exact rate limits by a script, for servers that load no module: the engine `script` of the clients beside this
-- folder.
--
-- It answers as RATELIMIT.HIT, PEEK, MHIT and REFUND do, by the server's clock, and replicates what it changed, not
-- itself. docs/commands.md explains the six integers. It needs scripts that replicate their effects, as they do by
-- default since Redis 5.
--
--   KEYS  one for each log. The clients add `:ratelimit` to the names they are given, so that a log of this script and
--         one of the module, which is a stream, are never at the same key.
--   ARGV  limit window [limit window ...] [COST units], for each key, with AND between them; and then, in any order,
--         [PEEK | STRICT | FORCE] [WITHTIERS]. Or, for one key, REFUND [COST units].
--
-- This is the grammar of the module's commands, but windows are whole milliseconds. Limits are 0 to 2^53 - 1 units,
-- windows 1 ms to 3650 days, a cost 1 to 2^53 - 1 units (PEEK takes 0 as well), and a key has at most 8 tiers.
--
-- The reply is six integers, or with WITHTIERS an array of six for each tier; with two keys or more, an array of such
-- replies; for REFUND, how many units were given back. An error changes nothing.
--
-- A log is a list of hits. Each has its time, and the total of all units up to it. So what a window holds is a
-- subtraction: the newest total less the total before the window's first hit. Totals count modulo 2^53, which Lua's
-- numbers hold exactly. That is enough because a log remembers only its newest 2^53 - 1 units: no limit is larger, so
-- older ones change no verdict and no wait.
--
-- The hits lie in blocks, which are fields of a hash. A block is the total before its first hit, then the time and the
-- total of each hit. The field `h` holds the state and the newest block. When this has 32 hits, the older 16 become a
-- block of their own, in a field named by its number. Most calls read one field and write one; a search in a long log
-- reads a few more. The state:
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
--
-- All is one loop with a single function, because a script's functions are made anew at each call, which costs more
-- than what they do. Before it stands a short way for the calls that are most frequent.

local MOST, WRAP = 9007199254740991, 9007199254740992 -- 2^53 - 1 units, and the modulus of totals
local STATE = '<I5I5I5I7I5I5I6' -- 38 bytes
local HEAD = 39 -- where the newest block begins in `h`; the others begin at 1
local HIT, TIME, TOTAL, BEFORE = '<I6I7', '<I6', '<I7', '<I7I6' -- a hit, and the total before a hit with its time
local BLOCK, FULL = 16, 32 -- hits
local FEW = 8 -- hits that may have left before the newest block is cut

local call, pack, unpack_list, unpack, keys = redis.call, struct.pack, unpack, struct.unpack, #KEYS
local clock = call('TIME')
clock = clock[1] * 1000 + (clock[2] - clock[2] % 1000) / 1000

local known -- the field `h` of the first key, if it has been read
if keys == 1 and #ARGV == 2 then
  -- HIT of one unit, one tier, one key. The short way is for a log of this one policy that lies in one block, with
  -- nothing to do but to add a hit or to refuse it.
  local limit, window = tonumber(ARGV[1]), tonumber(ARGV[2])
  known = call('HGET', KEYS[1], 'h')
  if limit and window and known and #known < HEAD + 13 * FULL - 7 then
    local _, first, current, origin, longest, fallback, expires = unpack(STATE, known)
    local newest, total = unpack(HIT, known, #known - 12)
    local start, at = clock - window, HEAD
    if window == longest and fallback == 0 and first == current and start < newest and newest <= clock then
      local before, since = unpack(BEFORE, known, at)
      while since <= start and at < HEAD + 13 * FEW do
        at = at + 13
        before, since = unpack(BEFORE, known, at)
      end
      local used, next_after = (total - before) % WRAP, since - start
      if used == limit and next_after > 0 then
        return { 0, limit, 0, next_after, newest - start, next_after }
      elseif used < limit and next_after > 0 and clock + window <= expires and limit <= MOST and limit % 1 == 0
        and (total - origin) % WRAP < MOST then
        call('HSET', KEYS[1], 'h', known .. pack(HIT, clock, (total + 1) % WRAP))
        return { 1, limit, limit - used - 1, 0, window, next_after }
      end
    end
  end
end

local sub, max = string.sub, math.max
local MANY = 64 -- most blocks deleted by one call
local LIMIT, WINDOW, USED, SINCE = 1, 2, 3, 4 -- of a tier; the last is when the first hit in its window was, or false
local mode, every_tier = 'HIT', false

-- The log that is being looked at: its key, the field `h`, the number of hits in it, and the state.
local key, head, count, oldest, first, current, origin, longest, fallback, expires

-- The first hit whose time or total, counted from `zero`, has come to `goal`: its place in its block, the block, the
-- byte at which that begins, and its number. The place is one too high if there is no such hit. The search in older
-- blocks begins at `guess`, a share of the log, goes up or down in growing steps, and then halves what is left.
local function find(format, zero, goal, guess)
  local offset = format == '<I6' and -6 or 0
  local block, at, number, last = head, 39, current, count
  if first < current and (unpack(format, head, 52 + offset) - zero) % 9007199254740992 >= goal then
    local low, high, passed, step = first, current, false, 1
    local probe = first + (current - first - 1) * guess
    probe = probe - probe % 1
    while low < high do
      local candidate = call('HGET', key, probe)
      if (unpack(format, candidate, #candidate - 6 + offset) - zero) % 9007199254740992 >= goal then
        high, block, at, number = probe, candidate, 1, probe
        probe = probe - step
      else
        low, passed = probe + 1, true
        probe = probe + step
      end
      step = step * 2
      if passed and high < current or probe < low or probe >= high then probe = (low + high - (low + high) % 2) / 2 end
    end
    last = number < current and (#block - 7) / 13 or count
  end
  -- The first place is tried first, because it is the likeliest.
  local low, high, middle = 1, last + 1, 1
  while low < high do
    if (unpack(format, block, at + offset + 13 * middle) - zero) % 9007199254740992 >= goal then
      high = middle
    else
      low = middle + 1
    end
    middle = (low + high - (low + high) % 2) / 2
  end
  return low, block, at, number
end

-- Several keys are looked at twice: first for the verdict, on which all depend and before which nothing is written.
local allowed, replies = true, nil
for pass = keys > 1 and 1 or 2, 2 do
  local argument = 1
  for nth = 1, keys do
    -- The arguments for this key.
    local tiers, amount, widest, least, most, cost = { false }, 0, 0, MOST, 0, 1
    local option = ARGV[argument]
    local limit = tonumber(option)
    while limit do
      local window = tonumber(ARGV[argument + 1])
      if not (limit >= 0 and limit <= MOST and limit % 1 == 0) then
        return { err = 'ERR limit is not an integer or out of range' }
      elseif not (window and window >= 1 and window <= 315360000000 and window % 1 == 0) then
        return { err = 'ERR window is not a whole number of milliseconds from 1 to 3650 days' }
      elseif amount == 8 then
        return { err = 'ERR too many tiers, at most 8 are allowed' }
      end
      amount, argument = amount + 1, argument + 2
      tiers[amount] = { limit, window, 0, false }
      if window > widest then widest = window end
      if limit < least then least = limit end
      if limit > most then most = limit end
      option = ARGV[argument]
      limit = tonumber(option)
    end
    while option do
      argument = argument + 1
      if option == 'COST' then
        cost, argument = tonumber(ARGV[argument]), argument + 1
      elseif option == 'AND' and nth < keys then
        break
      elseif option == 'WITHTIERS' and nth == keys then
        every_tier = true
      elseif nth == keys and (mode == 'HIT' or mode == option)
        and (option == 'PEEK' or option == 'STRICT' or option == 'FORCE' or option == 'REFUND') then
        mode = option
      else
        return { err = 'ERR syntax error' }
      end
      option = ARGV[argument]
    end
    if not (cost and cost >= 0 and cost <= MOST and cost % 1 == 0 and (cost > 0 or mode == 'PEEK')) then
      return { err = 'ERR cost is not an integer or out of range' }
    elseif (amount > 0) == (mode == 'REFUND') then
      return { err = 'ERR each key needs a limit and a window' }
    end

    -- The log. `now` is later than the clock if the newest hit is, because the clock was set back.
    key, head, count = KEYS[nth], known or call('HGET', KEYS[nth], 'h'), 0
    local now, newest, total, stale = clock, 0, 0, false
    if head then
      count = (#head - 45) / 13
      if count < 1 or count % 1 > 0 then
        return { err = 'ERR the hash at this key was not written by this script, it is left as it was' }
      end
      oldest, first, current, origin, longest, fallback, expires = unpack(STATE, head)
      newest, total = unpack(HIT, head, #head - 12)
      if newest > clock then now = newest end
      -- A log is stale if it is ahead of the clock by more than hits are kept. It starts again.
      stale = newest > clock + longest
    end
    if not head or stale then
      head, count, now, newest, total = ('\0'):rep(HEAD + 6), 0, clock, 0, 0
      oldest, first, current, origin, longest, fallback, expires = 1, 1, 1, 0, 0, 0, 0
    end
    local expired, changed = expires, count == 0

    -- What the windows hold, and where the widest one begins.
    local room, hit, block, at, number
    repeat
      local again = false
      room, hit, block, at, number = true, count + 1, head, HEAD, current
      for tier = 1, amount do
        local this = tiers[tier]
        local limit, window = this[LIMIT], this[WINDOW]
        if count > 0 and newest > now - window then
          local place, part, start, part_number = 1, head, HEAD, current
          local before, since = unpack(BEFORE, head, HEAD)
          if since <= now - window or first < current then
            local guess = window < longest and 1 - window / longest or 0
            place, part, start, part_number = find(TIME, 0, now - window + 1, guess)
            before, since = unpack(BEFORE, part, start + 13 * place - 13)
          end
          this[USED], this[SINCE] = (total - before) % WRAP, since
          if window == widest then hit, block, at, number = place, part, start, part_number end
        end
        if cost > limit - this[USED] and cost > 0 then room = false end
      end
      if mode == 'STRICT' and pass == 2 and not room and cost <= least then
        -- This refusal will be stored. Blocks beyond the newest `most` hits, each of at least one unit, can change no
        -- answer: they no longer count, so that such a log does not grow without end.
        local kept = current - max(0, (most - count) / BLOCK)
        kept = kept - kept % 1
        if kept > first then
          first, changed, again = kept, true, true
          origin = unpack(TOTAL, first < current and call('HGET', key, first) or sub(head, HEAD))
        end
      end
    until not again

    if pass == 1 then
      allowed = allowed and room
    else
      if keys == 1 then allowed = room end
      local refused = not allowed and not room
      local stored = amount > 0 and cost > 0
        and (allowed or mode == 'FORCE' or mode == 'STRICT' and refused and cost <= least)
      local weight = stored and cost or 0
      local held = (total - origin) % WRAP

      -- The answer describes the log with the hit in it. The tier that binds has the longest wait, or else the fewest
      -- units left.
      local answer, highest, wait
      for tier = 1, amount do
        local limit, window, since = tiers[tier][LIMIT], tiers[tier][WINDOW], tiers[tier][SINCE]
        local left, retry_after, leaves = limit - tiers[tier][USED] - weight, 0, window - clock
        if refused and cost > limit then
          retry_after = -1
        elseif refused and cost > left then
          -- Until that hit leaves with which enough units have left. It may be the one that is stored now.
          local missing = cost - limit + weight
          if missing > 0 then
            retry_after = now + leaves
          else
            local place, part, start = find(TOTAL, origin, held + missing, 1 + missing / held)
            retry_after = unpack(TIME, part, start + 13 * place - 6) + leaves
          end
        end
        if left < 0 then left = 0 end
        local reset_after, next_after = 0, 0
        if since then reset_after, next_after = newest + leaves, since + leaves end
        if stored then
          reset_after = now + leaves
          if not since then next_after = reset_after end
        end
        local six = { allowed and 1 or 0, limit, left, retry_after, reset_after, next_after }
        local rank = not refused and -left or retry_after < 0 and math.huge or retry_after
        if every_tier then
          answer = answer or {}
          answer[tier] = six
        elseif tier == 1 or rank > highest then
          answer = six
        end
        if tier == 1 or rank > highest then highest, wait = rank, retry_after end
      end

      local fields, dead
      if mode == 'REFUND' then
        -- The newest hits leave, at most 1,024 of them. What is left of the last one is recorded anew, now.
        local owed, rest, hits, newest_block = cost, 0, 1024, current
        while true do
          if count == 0 and current > first then
            current = current - 1
            head = sub(head, 1, HEAD - 1) .. call('HGET', key, current)
            count = (#head - 45) / 13
          end
          if owed == 0 or hits == 0 or count == 0 then break end
          local since, after = unpack(HIT, head, HEAD + 13 * count - 6)
          if since <= now - longest then break end
          total = unpack(TOTAL, head, HEAD + 13 * count - 13)
          local units = (after - total) % WRAP
          owed, rest = max(owed - units, 0), max(units - owed, 0)
          count, hits = count - 1, hits - 1
        end
        answer, stored, changed = cost - owed, owed < cost, true
        if stored and count == 0 and rest == 0 then
          call('UNLINK', key)
          stored = false
        elseif stored then
          head = sub(head, 1, HEAD + 13 * count + 6)
          if rest > 0 then head = head .. pack(HIT, now, (total - (WRAP - rest)) % WRAP) end
          if rest > 0 and expires < now + longest then expires = now + longest + longest / 8 end
          for gone = current, newest_block - 1 do
            dead = dead or {}
            dead[#dead + 1] = gone
          end
        end
      elseif stored and mode ~= 'PEEK' then
        -- How long hits are kept.
        if widest >= longest then
          if widest > longest or fallback > 0 then longest, fallback, changed = widest, 0, true end
          if expires < now + longest then expires = now + longest + longest / 8 end
        elseif fallback == 0 then
          if expires < now + longest then fallback, expires = widest, now + 2 * longest + longest / 8 end
        else
          if widest > fallback then fallback, changed = widest, true end
          if expires <= now + longest then
            longest, fallback = fallback, 0
            expires = now + longest + longest / 8
          end
        end

        -- What exceeds 2^53 - 1 units no longer counts. What has expired is cut off where this call knows how far that
        -- goes, and before a block is split.
        local after, surplus, base = (total - (WRAP - cost)) % WRAP, held - (MOST - cost), nil
        if surplus > 0 then
          base = (after + 1) % WRAP
          hit, block, at, number = find(TOTAL, origin, surplus + 1, 0)
        else
          if widest < longest then
            if count == FULL - 1 then
              hit, block, at, number = find(TIME, 0, now - longest + 1, 0)
            else
              hit, number = 1, first
            end
          end
          if number < current or hit <= FEW then hit = 1 end
          if number > first or hit > 1 then base = unpack(TOTAL, block, at + 13 * hit - 13) end
        end
        if base then
          if number == current then
            head = sub(head, 1, HEAD - 1) .. pack(TOTAL, base) .. sub(head, HEAD + 13 * hit - 6)
            count = count - hit + 1
          elseif surplus > 0 then
            fields = { number, pack(TOTAL, base) .. sub(block, 13 * hit - 5) }
          end
          first, origin, changed = number, base, true
        end

        head, count = head .. pack(HIT, now, after), count + 1
        if count == FULL then
          -- A hit ends with its total, and a block begins with the total before it: seven bytes are in both.
          fields = fields or {}
          fields[#fields + 1], fields[#fields + 2] = current, sub(head, HEAD, HEAD + 13 * BLOCK + 6)
          head = sub(head, 1, HEAD - 1) .. sub(head, HEAD + 13 * BLOCK)
          current, changed = current + 1, true
        end
        if oldest < first then
          dead = {}
          while oldest < first and #dead < MANY do
            dead[#dead + 1], oldest = oldest, oldest + 1
          end
          changed = true
        end
      elseif count > 0 and mode ~= 'PEEK' then
        -- A policy that is still asked is still in force, and nobody is told to wait longer than the key lives. There
        -- is something to write only where policies share a key.
        if fallback > 0 and widest > fallback and expires < now + 2 * longest then
          expires = now + 2 * longest + longest / 8
        end
        if widest > longest and clock + wait > expires then expires = now + widest + widest / 8 end
        stored = expires ~= expired
      end

      if stored and mode ~= 'PEEK' then
        -- HSET comes first, so that nothing is written if memory is short.
        if stale then call('UNLINK', key) end
        if changed or expires ~= expired then
          expires = expires - expires % 1
          head = pack(STATE, oldest, first, current, origin, longest, fallback, expires) .. sub(head, HEAD)
        end
        if fields then call('HSET', key, 'h', head, unpack_list(fields)) else call('HSET', key, 'h', head) end
        if dead then call('HDEL', key, unpack_list(dead)) end
        if expires ~= expired then call('PEXPIREAT', key, expires) end
      end
      if keys == 1 then return answer end
      replies = replies or {}
      replies[nth] = answer
    end
  end
end
return replies
