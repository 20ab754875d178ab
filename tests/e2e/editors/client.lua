-- Neovim's own LSP client as a client of the sidecar. Prints one JSON object and quits.
local command = vim.split(vim.env.SIDECAR_COMMAND, "\t")
local seen = { events = {}, text = "" }

local function finish(failure)
  seen.failure = failure
  io.stdout:write(vim.fn.json_encode(seen) .. "\n")
  io.stdout:flush()
  vim.cmd(failure and "cquit" or "qall!")
end

local client_id = vim.lsp.start_client({
  name = "agent-sidecar",
  cmd = command,
  root_dir = vim.fn.getcwd(),
  init_options = { protocolVersions = { 1 } },
  handlers = {
    ["conversation/event"] = function(_, event)
      table.insert(seen.events, event.type)
      if event.type == "delta" then
        seen.text = seen.text .. event.text
      end
    end,
    ["sidecar/ready"] = function(_, ready)
      seen.storeId = ready.storeId
    end,
    ["agent/state"] = function() end,
    ["conversations/changed"] = function() end,
  },
  on_exit = function(code)
    seen.exitCode = code
    vim.schedule(finish)
  end,
})

local client
if not vim.wait(20000, function()
  client = vim.lsp.get_client_by_id(client_id)
  return client ~= nil and client.initialized
end) then
  finish("it did not initialize")
end

local function call(method, params)
  local answer = client.request_sync(method, params, 20000)
  if not answer or answer.err then
    finish(method .. ": " .. vim.inspect(answer))
  end
  return answer.result
end

seen.protocolVersion = client.server_capabilities.experimental.sidecar.protocolVersion
local conversation = call("conversation/create", { mode = "chat" })
seen.result = call("message/send", { conversationId = conversation.conversationId, input = "help" })
client.stop()
vim.wait(20000, function() return false end)
finish("it did not exit")
