-- wrk script: refreshes many families in turn, so that each request finds its family where the
-- database has it, and not where the last request left it. One connection for each thread.
-- Env: BASIC, THREADS, TOKENS (a file with a refresh token a line; at its end a run writes there
-- what the next run begins with).
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/x-www-form-urlencoded"
wrk.headers["Authorization"] = "Basic " .. os.getenv("BASIC")

local threads = {}
function setup(thread)
  thread:set("number", #threads)
  table.insert(threads, thread)
end

function init()
  tokens, at, bad = {}, 0, 0
  local line_number = 0
  for line in io.lines(os.getenv("TOKENS")) do
    if line_number % tonumber(os.getenv("THREADS")) == number then
      table.insert(tokens, line)
    end
    line_number = line_number + 1
  end
end

function request()
  at = at % #tokens + 1
  return wrk.format(nil, nil, nil, "grant_type=refresh_token&refresh_token=" .. tokens[at])
end

function response(status, headers, body)
  local token = body:match('"refresh_token"%s*:%s*"([^"]+)"')
  if status ~= 200 or not token then
    bad = bad + 1
    if bad == 1 then print("status " .. status .. " " .. body) end
  else
    tokens[at] = token
  end
end

-- An answer that was on its way when the run ended is lost; its family answers a retry with the
-- same successor, so the token that stands here still works.
function done(summary, latency, requests)
  local out = io.open(os.getenv("TOKENS"), "w")
  for _, thread in ipairs(threads) do
    for _, token in ipairs(thread:get("tokens")) do
      out:write(token, "\n")
    end
  end
  out:close()
end
