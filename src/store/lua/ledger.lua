-- What the scripts that count have in common; each of them is loaded with this in front of it.
--
-- A ledger is a hash of what one principal uses under one policy:
--   <16 bytes: an upload>   a reservation: >I6 its bytes, >I6 its end in ms; a member, so that nothing counts it twice
--   "r"                     when the token bucket is full again, in microseconds
--   "d", "s"                a UTC day, and the bytes settled in it
-- Numbers stay below 2^53, where doubles are exact.

-- The codes of what stands in the way; 0 is nothing.
local RATE, ACTIVE, DAILY, CEILING = 1, 2, 3, 4

-- Walks through the reservations, other than that of `without`.
local function reservations(ledger, now, without)
  local seen = { live = 0, bytes = 0, earliest = 0, dead = {} }
  local fields = redis.call('HGETALL', ledger)
  for i = 1, #fields, 2 do
    local name = fields[i]
    if #name == 16 then
      local bytes, ends = struct.unpack('>I6I6', fields[i + 1])
      if ends <= now then
        seen.dead[#seen.dead + 1] = name
      elseif name ~= without then
        seen.live = seen.live + 1
        seen.bytes = seen.bytes + bytes
        if seen.earliest == 0 or ends < seen.earliest then
          seen.earliest = ends
        end
      end
    end
  end
  return seen
end

-- The bytes settled today. A day that lies ahead was written by an instance whose clock is: it counts.
local function settled(ledger, today)
  local day = tonumber(redis.call('HGET', ledger, 'd') or today)
  if day < today then
    return 0
  end
  return tonumber(redis.call('HGET', ledger, 's') or 0)
end

-- What stands in the way of one more reservation, as a code and a number that goes with it: the earliest end of a
-- reservation, or the bytes used today. Then the reservations that are over. A limit below 0 is not set.
local function obstacle(ledger, id, bytes, now, today, max_active, daily, ceiling)
  if max_active < 0 and daily < 0 and redis.call('HLEN', ledger) < ceiling then
    return 0, 0, {}
  end
  local seen = reservations(ledger, now, id)
  if seen.live >= ceiling then
    return CEILING, seen.earliest, seen.dead
  end
  if max_active >= 0 and seen.live >= max_active then
    return ACTIVE, seen.earliest, seen.dead
  end
  if daily >= 0 then
    local used = settled(ledger, today) + seen.bytes
    if used + bytes > daily then
      return DAILY, used, seen.dead
    end
  end
  return 0, 0, seen.dead
end

-- Writes a reservation, and forgets those that are over.
local function reserve(ledger, id, bytes, ends, dead, life)
  for i = 1, #dead, 1000 do
    redis.call('HDEL', ledger, unpack(dead, i, math.min(i + 999, #dead)))
  end
  redis.call('HSET', ledger, id, struct.pack('>I6I6', bytes, ends))
  redis.call('PEXPIRE', ledger, life)
end
