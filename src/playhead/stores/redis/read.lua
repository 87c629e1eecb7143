-- A page of entries and the state of the same moment.
-- KEYS  state, log
-- ARGV  the offset that the reader has, about how many bytes to return
-- Returns nil, or {version, tail, data bytes, state, {last offset, epoch, entry, …}}.
local state = redis.call('HMGET', KEYS[1], 'v', 'tail', 'size', 'info')
if not state[1] then return false end
local page, used, most, count, from = {}, 0, tonumber(ARGV[2]), 4, '(' .. ARGV[1] .. '-0'
while true do
    local rows = redis.call('XRANGE', KEYS[2], from, '+', 'COUNT', count)
    for _, row in ipairs(rows) do
        local entry = row[2][4]
        if used > 0 and used + #entry > most then
            state[5] = page
            return state
        end
        used = used + #entry
        page[#page + 1] = string.match(row[1], '^%d+')
        page[#page + 1] = row[2][2]
        page[#page + 1] = entry
    end
    if #rows < count then break end
    from = '(' .. rows[#rows][1]
    -- As many as will about fill the page, going by those seen so far.
    count = math.max(1, math.min(1000, math.ceil((most - used) * #page / 3 / used)))
end
state[5] = page
return state
