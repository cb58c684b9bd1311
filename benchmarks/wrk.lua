-- What wrk sends and how it judges the answers; the arguments: method, a task's id or a text, what an answer holds.
local method, value, expect
local sent = 0
wrong = 0 -- global: `done` asks each thread for it
local threads = {}

function setup(thread)
  table.insert(threads, thread)
end

function init(args)
  method, value, expect = args[1], args[2], args[3]
end

function request()
  sent = sent + 1
  local params
  if method == "GetTask" then
    params = '{"id":"' .. value .. '"}'
  else
    params = '{"message":{"messageId":"m' .. sent .. '","role":"ROLE_USER","parts":[{"text":"' .. value .. '"}]}}'
  end
  local body = '{"jsonrpc":"2.0","id":' .. sent .. ',"method":"' .. method .. '","params":' .. params .. '}'
  return wrk.format("POST", "/", { ["Content-Type"] = "application/json", ["A2A-Version"] = "1.0" }, body)
end

function response(status, headers, body)
  if status ~= 200 or not string.find(body, expect, 1, true) then
    wrong = wrong + 1
  end
end

function done(summary, latency, requests)
  local refused = 0
  for _, thread in ipairs(threads) do
    refused = refused + thread:get("wrong")
  end
  local errors = summary.errors
  io.write(string.format(
    '\n{"answers":%d,"seconds":%.6f,"p50":%.3f,"p99":%.3f,"wrong":%d,"lost":%d}\n',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(99) / 1e3,
    refused, errors.connect + errors.read + errors.write + errors.timeout))
end
