-- Forget owners that have no uploads any more.
--   KEYS[1] the owners of a partition   KEYS[1+n] the index of the nth of some principals; all in one {pNN}
--   ARGV[n] that principal, 15 bytes
-- Returns how many were forgotten.
assert(#KEYS == #ARGV + 1, 'forget_owners.lua takes one key and a key for each argument')
local forgotten = 0
for n = 1, #ARGV do
  if redis.call('EXISTS', KEYS[n + 1]) == 0 then
    forgotten = forgotten + redis.call('HDEL', KEYS[1], ARGV[n])
  end
end
return forgotten
