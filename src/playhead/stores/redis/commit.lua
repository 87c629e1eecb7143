-- Commit what the rules decided, if nothing but appends happened since they were asked. Also swaps claims.
-- KEYS  the hash; and when the events are to go: log, garbage
-- ARGV  version expected ('' = there is none), channel ('' = tell nobody), hint, the channel of the thread on which this
--       makes a stream ('' = none), then field, value … (none = delete)
-- Returns nil when the version is another one, else {tail, data bytes}.
if (redis.call('HGET', KEYS[1], 'v') or '') ~= ARGV[1] then return false end
local before = redis.call('HMGET', KEYS[1], 'tail', 'size')
if KEYS[2] and redis.call('EXISTS', KEYS[2]) == 1 then redis.call('RENAME', KEYS[2], KEYS[3]) end
if #ARGV > 4 then
    redis.call('HSET', KEYS[1], unpack(ARGV, 5))
else
    redis.call('DEL', KEYS[1])
end
local tail, size = before[1] or '0', before[2] or '0'
if ARGV[2] ~= '' then
    local hint = ''
    if ARGV[3] ~= '' then hint = tail .. ' ' .. size .. ' ' .. ARGV[3] end
    redis.call('PUBLISH', ARGV[2], hint)
end
if ARGV[4] ~= '' then redis.call('PUBLISH', ARGV[4], '') end
return {tail, size}
