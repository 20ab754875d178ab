;;; client.el --- Emacs' own JSON-RPC client as a client of the sidecar  -*- lexical-binding: t -*-
;; Prints one JSON object and quits.
(require 'jsonrpc)
(require 'json)
(require 'subr-x)

(let* ((seen-events nil)
       (text "")
       (connection
        (make-instance
         'jsonrpc-process-connection
         :name "agent-sidecar"
         :process (make-process :name "agent-sidecar"
                                :command (split-string (getenv "SIDECAR_COMMAND") "\t")
                                :connection-type 'pipe
                                :coding 'utf-8-emacs-unix
                                :noquery t
                                :stderr (get-buffer-create "*stderr*"))
         :notification-dispatcher
         (lambda (_connection method params)
           (when (eq method 'conversation/event)
             (push (plist-get params :type) seen-events)
             (when (equal (plist-get params :type) "delta")
               (setq text (concat text (plist-get params :text))))))))
       (initialized
        (jsonrpc-request connection :initialize
                         (list :processId (emacs-pid) :capabilities (make-hash-table)
                               :initializationOptions '(:protocolVersions [1]))))
       (_ (jsonrpc-notify connection :initialized (make-hash-table)))
       (conversation (jsonrpc-request connection :conversation/create '(:mode "chat")))
       (result (jsonrpc-request connection :message/send
                                (list :conversationId (plist-get conversation :conversationId)
                                      :input "help")
                                :timeout 20))
       (process (jsonrpc--process connection)))
  (jsonrpc-request connection :shutdown nil)
  (jsonrpc-notify connection :exit nil)
  (while (process-live-p process) (accept-process-output process 0.1))
  (princ
   (json-encode
    (list :protocolVersion
          (thread-first initialized
                        (plist-get :capabilities) (plist-get :experimental)
                        (plist-get :sidecar) (plist-get :protocolVersion))
          :events (vconcat (reverse seen-events))
          :text text
          :result result
          :exitCode (process-exit-status process)))))
;;; client.el ends here
