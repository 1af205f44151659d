-- Adds the module's counters to the Prometheus exporter of Redis, which leaves out INFO sections of modules. Start
-- redis_exporter -script exporter.lua: it exports each counter as redis_script_values{key="hits_refused"}.
local values = {}
for field, value in redis.call('INFO', 'ratelimit'):gmatch('ratelimit_([%l_]+):(%d+)\r\n') do
  table.insert(values, field)
  table.insert(values, value)
end
return values
