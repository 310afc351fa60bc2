-- Admit one upload: count it against its principal's limits, write its record, reservation, index and due entry, and
-- remember its idempotency key; or change nothing.
--   KEYS[1] the record   KEYS[2] the ledger   KEYS[3] the index   KEYS[4] the due queue
--   KEYS[5] the owners               KEYS[6] the idempotency key, if there is one; all in the principal's {pNN}
--   ARGV[1] the upload, 16 bytes      ARGV[2] now, ms               ARGV[3] the UTC day
--   ARGV[4] bytes to reserve          ARGV[5] end of the lease, ms  ARGV[6] the record
--   ARGV[7] created at, ms            ARGV[8] 1: limits refuse, 0: they report
--   ARGV[9] max_active, or -1         ARGV[10] daily_bytes, or -1
--   ARGV[11] tokens of the bucket, 0 for no rate                    ARGV[12] microseconds that one token takes
--   ARGV[13] life of the record, ms   ARGV[14] of the ledger, ms    ARGV[15] of the index, ms
--   ARGV[16] most reservations        ARGV[17] most index entries
--   ARGV[18] the principal, 15 bytes  ARGV[19] its owner
--   with KEYS[6]: ARGV[20] the request's fingerprint, 16 bytes      ARGV[21] life of the idempotency key, ms
--                 ARGV[22] the upload that the idempotency key may be taken from, 16 bytes, or empty
-- Returns {0, hit, number} when admitted, {1, hit, number} when refused ("hit" as in ledger.lua; of a rate the number
-- is the wait in microseconds), {2, record} when the upload is there already, {3, upload, fingerprint and when that is forgotten} when the
-- idempotency key names another upload.
assert((#KEYS == 5 and #ARGV == 19) or (#KEYS == 6 and #ARGV == 22), 'admit.lua takes 5 keys and 19 arguments, or 6 and 22')
local record, ledger, index, due, owners, key = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local id, now, bytes, ends = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[4]), tonumber(ARGV[5])
local enforced, tokens, interval = ARGV[8] == '1', tonumber(ARGV[11]), tonumber(ARGV[12])

local own = redis.call('GET', record)
if own then
  return { 2, own }
end
if key then
  local known = redis.call('GET', key)
  -- Redis's own clock only tidies up: a key is forgotten when the caller's clock says so.
  local remembered = known and tonumber(string.sub(known, 33)) > now
  if remembered and string.sub(known, 1, 16) ~= ARGV[22] then
    return { 3, known }
  end
end

local hit, number, full = 0, 0, nil
if tokens > 0 then
  local now_us = now * 1000
  -- Never further ahead than an empty bucket: an earlier configuration may have had a slower one.
  local start = math.max(tonumber(redis.call('HGET', ledger, 'r') or 0), now_us)
  start = math.min(start, now_us + interval * tokens)
  local over = start - now_us - interval * (tokens - 1)
  if over > 0 then
    hit, number = RATE, over
  else
    full = start + interval
  end
end
if hit ~= 0 and enforced then
  return { 1, hit, number }
end
local other, its_number, dead =
  obstacle(ledger, id, bytes, now, tonumber(ARGV[3]), tonumber(ARGV[9]), tonumber(ARGV[10]), tonumber(ARGV[16]))
if other == CEILING or (other ~= 0 and enforced) then
  return { 1, other, its_number }
end
if hit == 0 then
  hit, number = other, its_number
end

redis.call('SET', record, ARGV[6], 'PX', ARGV[13])
reserve(ledger, id, bytes, ends, dead, ARGV[14])
if full then
  redis.call('HSET', ledger, 'r', string.format('%.0f', full))
end
redis.call('ZADD', index, ARGV[7], id)
-- A few at a time: an admission adds one entry, so this keeps up.
local old = redis.call('ZRANGEBYSCORE', index, '-inf', string.format('(%.0f', now - tonumber(ARGV[15])), 'LIMIT', 0, 16)
if #old > 0 then
  redis.call('ZREM', index, unpack(old))
end
-- Who wrote the first of its uploads anew, after a loss, may not have known whose it is.
local owner = redis.call('HGET', owners, ARGV[18])
if not owner or owner == '' then
  redis.call('HSET', owners, ARGV[18], ARGV[19])
end
local surplus = redis.call('ZCARD', index) - tonumber(ARGV[17])
if surplus > 0 then
  redis.call('ZREMRANGEBYRANK', index, 0, math.min(surplus, 16) - 1)
end
redis.call('PEXPIRE', index, ARGV[15])
redis.call('ZADD', due, ARGV[5], id)
if key then
  redis.call('SET', key, id .. ARGV[20] .. string.format('%.0f', now + tonumber(ARGV[21])), 'PX', ARGV[21])
end
return { 0, hit, number }
