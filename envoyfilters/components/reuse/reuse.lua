local QUESTION, TOKEN = "verify", "x-tenant-token"  -- set for each filter by kustomization.yaml

-- Gives an answer of the service again where nothing that it depends on is another: the question
-- behind this filter is then not asked. The service says for how long it may (authz/domain/reuse.py),
-- and for which answers at all. A key must name all that such an answer depends on. Whatever goes
-- wrong here, and every request that does not come to `skip`, is asked about.
--
-- Each worker thread of a proxy runs a copy of its own, with a memory of its own, which a change of
-- the listener empties.

local UPSTREAM = 'x-tenant-authz-upstream'       -- the cluster that Envoy chose, see filter.yaml
local REASON = 'x-tenant-authz-reason'           -- of a denial, to the client
local OURS = 'tenant-authz.reuse'                -- metadata: what this filter notes of a request
local ANSWER = 'envoy.filters.http.ext_authz'    -- metadata: what the service told
local LONGEST = 1024                             -- of a key, in bytes; longer ones are asked about
local MOST = 2048                                -- keys of a generation
local SHARE = 512                                -- of these, for one peer's namespace
local TURN = 60                                  -- seconds after which a generation ends anyway
local MAX_SECONDS = 300                          -- whatever is told

-- -- memory: two generations of answers. Who fills a share keeps no more, and evicts nobody --------

local young, old, size, used, turned = {}, {}, 0, {}, 0

local function turn(now)
  young, old, size, used, turned = {}, young, 0, {}, now
end

local function forget_all()
  young, old, size, used, turned = {}, {}, 0, {}, 0
end

-- The answer for a key, while it is good. Before its end one request asks, and the others go on.
local function find(key, now)
  local kept = young[key] or old[key]
  if kept == nil or now < kept.since or now >= kept.ends then return nil end
  if now >= kept.renew then
    kept.renew = now + 1
    return nil
  end
  return kept
end

local function keep(room, key, kept, now)
  if size >= MOST or now >= turned + TURN then turn(now) end
  if young[key] == nil then
    local share = (used[room] or 0) + 1
    if share > SHARE and room ~= '' then return end
    used[room], size = share, size + 1
  end
  young[key] = kept
end

-- -- keys: whose room, and all that the answer depends on; nothing where each must be asked about --

local function of_peer(handle, headers, where)
  local info = handle:streamInfo()
  local tls = info:downstreamSslConnection()
  if tls == nil then return end                  -- plaintext proves nobody
  local peers = tls:uriSanPeerCertificate()
  if #peers ~= 1 then return end
  local peer = peers[1]
  local key = peer .. '\n' .. info:downstreamLocalAddress() .. '\n' .. where .. '\n'
  return peer:match('/ns/([^/]+)/') or peer, key .. (headers:get(TOKEN) or '')
end

local key_of = {
  sign = function(_, headers)
    local upstream = headers:get(UPSTREAM)
    headers:remove(UPSTREAM)
    if upstream == nil then return end
    return '', upstream .. '\n' .. (headers:get(':authority') or '')
  end,
  verify = function(handle, headers)
    return of_peer(handle, headers, '')
  end,
  transit = function(handle, headers)            -- at the activator, which goes by these
    local namespace = headers:get('knative-serving-namespace') or ''
    local revision = headers:get('knative-serving-revision') or ''
    if (namespace .. revision):find(',', 1, true) then return end  -- one of several values
    if namespace == '' or revision == '' then
      namespace = '\n' .. (headers:get(':authority') or '')
    end
    return of_peer(handle, headers, namespace)
  end,
}

-- -- a request -------------------------------------------------------------------------------------

local waiting, last_asked = 0, 0                 -- how many were asked about and not answered yet
local latest, forgot = 0, 0                      -- when a request came, and when all was forgotten
local epoch                                      -- of the answers that are kept

local function skip(metadata)
  -- The key by which scrape.yaml, too, says that there is no question: a filter has one.
  metadata:set('envoy.filters.http.rbac', 'tenant_authz_shadow_engine_result', 'allowed')
end

function envoy_on_request(handle)
  local headers, now = handle:headers(), os.time()
  if now < latest then                           -- set back: what has ended would be good once more
    forget_all()
    forgot = 0
  end
  latest = now
  local room, key = key_of[QUESTION](handle, headers)
  if key == nil or #key > LONGEST then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  local kept = find(key, now)
  if kept ~= nil then
    if QUESTION == 'sign' then
      headers:remove(TOKEN)
      if kept.token ~= nil then headers:add(TOKEN, kept.token) end
    end
    skip(metadata)
  elseif not key:find('[\128-\255]') then        -- metadata are text
    metadata:set(OURS, 'key', key)
    metadata:set(OURS, 'room', room)
    metadata:set(OURS, 'at', now)
    if now > last_asked + TURN then waiting = 0 end  -- of a stream that was reset nothing is heard
    waiting, last_asked = waiting + 1, now
  end
end

-- -- and what became of it -------------------------------------------------------------------------

function envoy_on_response(handle)
  if QUESTION == 'sign' and handle:headers():get(REASON) == 'token-invalid' then
    local now = os.time()                        -- our namespace was revoked, perhaps
    if now > forgot then
      forget_all()
      forgot = now
    end
    return
  end
  if waiting == 0 then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  local asked = metadata:get(OURS)
  if asked == nil then return end
  waiting = waiting - 1
  local key, since, now = asked.key, asked.at, os.time()
  local answer = metadata:get(ANSWER)
  local seconds = answer and answer.tenant_authz_reuse
  if type(seconds) ~= 'number' or not (seconds >= 1) then  -- a denial, or an answer for once
    young[key], old[key] = nil, nil
    return
  end
  seconds = math.min(math.floor(seconds), MAX_SECONDS)
  local ends = since + seconds                   -- from when it was asked: it may be old by now
  if now < since or now >= ends or since < forgot then return end
  if answer.tenant_authz_epoch ~= epoch then     -- something was revoked since
    forget_all()
    epoch, forgot = answer.tenant_authz_epoch, since
  end
  local renew = since + math.max(1, math.floor(seconds * 3 / 4))
  keep(asked.room, key, {since = since, renew = renew, ends = ends, token = answer.tenant_authz_token}, now)
end
