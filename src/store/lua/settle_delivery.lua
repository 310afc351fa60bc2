-- Say what came of an attempt to deliver. Changes nothing where the delivery is not waiting any more.
--   KEYS[1] the outbox   KEYS[2] the failures   KEYS[3] what is parked; all of one endpoint and in one {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] 'done', 'retry' or 'park'   ARGV[3] when to try next, or parked at, ms
--   ARGV[4] what is known of the failures                              ARGV[5] life of what is written, ms
--   ARGV[6] what was parked then or before is forgotten, ms; with 'retry' and 'park'
-- Returns 1 when the delivery was waiting, else 0.
assert(#KEYS == 3 and #ARGV == 6, 'settle_delivery.lua takes 3 keys and 6 arguments')
local outbox, failures, parked = KEYS[1], KEYS[2], KEYS[3]
local id, outcome = ARGV[1], ARGV[2]
assert(outcome == 'done' or outcome == 'retry' or outcome == 'park', 'settle_delivery.lua: unknown outcome')

if not redis.call('ZSCORE', outbox, id) then
  return 0
end
if outcome == 'done' then
  redis.call('ZREM', outbox, id)
  redis.call('HDEL', failures, id)
  return 1
end
if outcome == 'retry' then
  redis.call('ZADD', outbox, ARGV[3], id)
  redis.call('PEXPIRE', outbox, ARGV[5])
else
  redis.call('ZREM', outbox, id)
  redis.call('ZADD', parked, ARGV[3], id)
end
redis.call('HSET', failures, id, ARGV[4])
redis.call('PEXPIRE', failures, ARGV[5])
-- Both keys live on while anything fails, and end together. So what is old leaves one by one: a few at a time, which
-- keeps up, since one is added at a time.
redis.call('PEXPIRE', parked, ARGV[5])
local old = redis.call('ZRANGEBYSCORE', parked, '-inf', ARGV[6], 'LIMIT', 0, 16)
if #old > 0 then
  redis.call('ZREM', parked, unpack(old))
  redis.call('HDEL', failures, unpack(old))
end
return 1
