-- Say what came of an attempt to deliver. Changes nothing where the delivery is not waiting any more.
--   KEYS[1] the outbox   KEYS[2] the failures   KEYS[3] what is parked; all of one endpoint and in one {pNN}
--   ARGV[1] the upload, 16 bytes   ARGV[2] 'done', 'retry' or 'park'   ARGV[3] when to try next, or parked at, ms
--   ARGV[4] what is known of the failures                              ARGV[5] life of what is written, ms
-- Returns 1 when the delivery was waiting, else 0.
assert(#KEYS == 3 and #ARGV == 5, 'settle_delivery.lua takes 3 keys and 5 arguments')
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
  redis.call('PEXPIRE', parked, ARGV[5])
end
redis.call('HSET', failures, id, ARGV[4])
redis.call('PEXPIRE', failures, ARGV[5])
return 1
