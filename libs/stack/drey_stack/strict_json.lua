-- Refuses what the transcoder would drop unseen: query parameters and fields of a JSON body that the
-- method's request does not have, and labels that an enum does not have. ROUTES and MESSAGES, which
-- stand above when Envoy loads this, are made from the contracts.
--
-- A reader of JSON that keeps nothing: it looks at names as it passes them. It is stricter than the
-- transcoder (names in quotes, nothing after the end), so that both read the same.

local DEEPEST = 100

local Refused = {}

local function refuse(reason, text, field)
  error(setmetatable({reason = reason, text = text, field = field or ""}, Refused), 0)
end

local function malformed(position, text)
  refuse("MALFORMED_MESSAGE", "the body is not JSON: byte " .. position .. ": " .. text)
end

local function skip_blanks(body, position)
  return body:find("[^ \t\r\n]", position) or #body + 1
end

-- The text between the quotes, escapes and all, and the position behind it.
local function read_string(body, position)
  local first, index = position + 1, position + 1
  while true do
    index = body:find('["\\%c]', index)
    local found = index and body:sub(index, index)
    if found == '"' then
      return body:sub(first, index - 1), index + 1
    elseif found ~= "\\" then
      malformed(index or #body, "a text without its end, or a control character in it")
    end
    index = index + 2
  end
end

local read_value

local function read_name(body, position, path)
  if body:sub(position, position) ~= '"' then
    malformed(position, "the name of a field in quotes was expected")
  end
  local name, behind = read_string(body, position)
  if name:find("\\", 1, true) then
    refuse("UNKNOWN_FIELD", "no field has an escape in its name", path .. name)
  end
  behind = skip_blanks(body, behind)
  if body:sub(behind, behind) ~= ":" then malformed(behind, "a colon was expected") end
  return name, behind + 1
end

local function read_object(body, position, kind, path, depth)
  local fields = MESSAGES[kind]
  position = skip_blanks(body, position + 1)
  if body:sub(position, position) == "}" then return position + 1 end
  while true do
    local name, behind = read_name(body, position, path)
    local inner
    if fields then
      inner = fields[name]
      if inner == nil then
        refuse("UNKNOWN_FIELD", "there is no such field", path .. (name == "" and '""' or name))
      end
    end
    position = skip_blanks(body, read_value(body, behind, inner or "", path .. name, depth))
    local found = body:sub(position, position)
    if found == "}" then return position + 1 end
    if found ~= "," then malformed(position, "a comma or the end of an object was expected") end
    position = skip_blanks(body, position + 1)
  end
end

local function read_list(body, position, kind, path, depth)
  position = skip_blanks(body, position + 1)
  if body:sub(position, position) == "]" then return position + 1 end
  while true do
    position = skip_blanks(body, read_value(body, position, kind, path, depth))
    local found = body:sub(position, position)
    if found == "]" then return position + 1 end
    if found ~= "," then malformed(position, "a comma or the end of a list was expected") end
    position = position + 1
  end
end

-- `kind` is the name of a message or of an enum in MESSAGES, or "" for what is not looked into.
function read_value(body, position, kind, path, depth)
  if depth > DEEPEST then malformed(position, "too deep") end
  position = skip_blanks(body, position)
  local found = body:sub(position, position)
  if found == "{" then
    return read_object(body, position, kind, path .. ".", depth + 1)
  elseif found == "[" then
    return read_list(body, position, kind, path, depth + 1)
  elseif found == '"' then
    local text, behind = read_string(body, position)
    local labels = MESSAGES[kind]
    if labels and labels[text] == nil and not text:find("^-?%d+$") then
      refuse("INVALID_FIELD", "there is no label " .. text, path)
    end
    return behind
  end
  local _, last = body:find("^[%w.+-]+", position)
  if not last then malformed(position, "a value was expected") end
  return last + 1
end

local function check_body(body, kind)
  local position = skip_blanks(body, 1)
  if position > #body then return end
  if body:sub(position, position) ~= "{" then malformed(position, "an object was expected") end
  position = skip_blanks(body, read_object(body, position, kind, "", 1))
  if position <= #body then malformed(position, "something follows the end") end
end

local function check_query(query, kind)
  for pair in query:gmatch("[^&]+") do
    local name, value = pair:match("^([^=]*)=?(.*)$")
    local inner = kind
    for part in (name .. "."):gmatch("(.-)%.") do
      local fields = MESSAGES[inner]
      inner = fields and fields[part]
      if inner == nil then
        refuse("UNKNOWN_FIELD", "there is no such parameter", name)
      end
    end
    local labels = MESSAGES[inner]
    if labels and labels[value] == nil and not value:find("^-?%d+$") then
      refuse("INVALID_FIELD", "there is no label " .. value, name)
    end
  end
end

local function find_route(verb, path)
  for _, route in ipairs(ROUTES[verb] or {}) do
    if path:find(route.pattern) then return route end
  end
  refuse("UNKNOWN_METHOD", "no method has this path and verb; /openapi.json lists them")
end

local function check_request(handle)
  local headers = handle:headers()
  local path, query = headers:get(":path"):match("^([^?#]*)%??([^#]*)")
  local route = find_route(headers:get(":method"), path)
  if route.streams then handle:streamInfo():dynamicMetadata():set("drey", "streams", true) end
  check_query(query, route.input)
  local body = handle:body()
  if not body or body:length() == 0 then return end
  if not route.body then
    refuse("MALFORMED_MESSAGE", "this method takes its parameters from the path, and no body")
  end
  check_body(body:getBytes(0, body:length()), route.input)
end

function envoy_on_request(handle)
  local ok, refused = pcall(check_request, handle)
  if ok then return end
  if getmetatable(refused) ~= Refused then error(refused, 0) end
  local notes = handle:streamInfo():dynamicMetadata()
  notes:set("drey", "reason", refused.reason)
  notes:set("drey", "field", refused.field)
  local text = refused.text
  if refused.field ~= "" then text = refused.field .. ": " .. text end
  local status = refused.reason == "UNKNOWN_METHOD" and "404" or "400"
  handle:respond({[":status"] = status}, text)
end

-- The transcoder calls lines of JSON what they are not.
function envoy_on_response(handle)
  local notes = handle:streamInfo():dynamicMetadata():get("drey")
  local headers = handle:headers()
  if notes and notes.streams and headers:get(":status") == "200" and
     headers:get("content-type") == "application/json" then
    headers:replace("content-type", "application/x-ndjson")
  end
end
