-- Adds the module's counters to the Prometheus exporter of Redis, which leaves out INFO sections of modules. Start
-- redis_exporter -script exporter.lua: it exports each counter as redis_script_values{key="hits_refused"}, and those of a policy
-- as redis_script_values{key="policy_100/1m:refused"}.
local values = {}
local function add(field, value)
  table.insert(values, field)
  table.insert(values, value)
end
for field, text in redis.call('INFO', 'ratelimit'):gmatch('ratelimit_([^:]+):([^\r]+)\r\n') do
  if text:match('^%d+$') then
    add(field, text)
  end
  for name, value in text:gmatch('(%l+)=(%d+)') do
    add(field .. ':' .. name, value)
  end
end
return values
