local TOKEN, DOMAIN, SERVICE = "x-tenant-token", "cluster.local", "authz-system"  -- kustomization.yaml

-- The activator's calls to a pod carry their origin's token, and the answer to `sign` is then to leave
-- it (row `passed-on`): that can be told without a question, where one token is there and Envoy chose
-- a Service of the cluster. Its own probes carry none and are asked about, as is what leaves the mesh.

local UPSTREAM = 'x-tenant-authz-upstream'

function envoy_on_request(handle)
  local headers = handle:headers()
  local upstream = headers:get(UPSTREAM)
  headers:remove(UPSTREAM)
  local token = headers:get(TOKEN)
  if upstream == nil or token == nil or token == '' or token:find(',', 1, true) then return end
  local namespace, domain =
    upstream:match('^outbound|[0-9]+|[A-Za-z0-9._-]*|[a-z0-9-]+[.]([a-z0-9-]+)[.]svc[.](.+)$')
  if domain ~= DOMAIN or namespace == SERVICE then return end
  local metadata = handle:streamInfo():dynamicMetadata()
  metadata:set('envoy.filters.http.rbac', 'tenant_authz_shadow_engine_result', 'allowed')
end
